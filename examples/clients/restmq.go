// Go 1.19 or newer, without a module. In each case, QUEUE is the name of a queue:
//
//	go run restmq.go produce QUEUE         publishes each line of its input, and prints the keys
//	go run restmq.go work QUEUE [SECONDS]  does jobs, each under a lease of SECONDS (30) that is extended meanwhile
//	go run restmq.go listen QUEUE          prints live messages, and resumes where the connection broke
//
// A job "sleep 5" takes 5 seconds, "fail TEXT" fails; any other job is printed. RESTMQ_URL is the server.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	server  = "http://127.0.0.1:8888"
	queue   string
	seconds = 30.0
)

// ask sends a request. The caller closes the answer's body.
func ask(ctx context.Context, method, path, body string, headers map[string]string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, server+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	if err == nil && answer.StatusCode >= 400 {
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return nil, fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	return answer, err
}

// text is the answer's body.
func text(answer *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func produce(ctx context.Context) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		id := make([]byte, 16)
		rand.Read(id)
		// Repeated with the same key, a request queues its message once.
		headers := map[string]string{"Content-Type": "text/plain", "Idempotency-Key": fmt.Sprintf("%x", id)}
		key, err := text(ask(ctx, "POST", "/q/"+queue, lines.Text(), headers))
		if err != nil {
			return err
		}
		fmt.Println(strings.TrimSpace(key))
	}
	return nil
}

func work(ctx context.Context) error {
	for ctx.Err() == nil {
		answer, err := ask(ctx, "GET", fmt.Sprintf("/q/%s?raw=1&wait=30&lease=%g", queue, seconds), "", nil)
		if err == nil && answer.StatusCode == http.StatusNoContent {
			answer.Body.Close() // there was no job
		} else if err == nil {
			err = settle(answer)
		}
		complain(ctx, err)
	}
	return nil
}

// settle does the job and acks it. It goes on if a signal ends ctx, so it has a context of its own.
func settle(answer *http.Response) error {
	message, receipt := "/m/"+answer.Header.Get("X-RestMQ-Key"), answer.Header.Get("X-RestMQ-Receipt")
	job, err := text(answer, nil)
	if err != nil {
		return err
	}
	ctx, done := context.WithCancel(context.Background())
	defer done()
	change := func(fields url.Values) error {
		fields.Set("receipt", receipt)
		form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
		_, err := text(ask(ctx, "POST", message, fields.Encode(), form))
		return err
	}
	go func() {
		for every := time.NewTicker(time.Duration(seconds / 3 * float64(time.Second))); ; {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				change(url.Values{"lease": {fmt.Sprint(seconds)}})
			}
		}
	}()
	if err := perform(job); err != nil {
		return change(url.Values{"lease": {"0"}, "reason": {err.Error()}}) // nack: it returns to its queue
	}
	_, err = text(ask(ctx, "DELETE", message+"?receipt="+receipt, "", nil)) // ack
	return err
}

func perform(job string) error {
	word, rest, _ := strings.Cut(job, " ")
	if word == "fail" {
		return errors.New(rest)
	}
	if took, err := strconv.ParseFloat(rest, 64); word == "sleep" && err == nil {
		time.Sleep(time.Duration(took * float64(time.Second)))
	}
	fmt.Println("done:", job)
	return nil
}

func listen(ctx context.Context) error {
	headers := map[string]string{}
	for ctx.Err() == nil {
		answer, err := ask(ctx, "GET", "/sse/"+queue, "", headers)
		if err == nil {
			err = read(bufio.NewReader(answer.Body), headers)
			answer.Body.Close()
		}
		complain(ctx, err)
	}
	return nil
}

// read prints events until the stream ends.
func read(stream *bufio.Reader, headers map[string]string) error {
	fields, data := map[string]string{}, []string{}
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case found && name == "data":
			data = append(data, value)
		case found:
			fields[name] = value
		case name == "" && fields["event"] == "gap":
			fmt.Fprintln(os.Stderr, "some messages were missed")
			fields, data = map[string]string{}, nil
		case name == "":
			if len(data) > 0 {
				fmt.Println(strings.Join(data, "\n"))
			}
			if id := fields["id"]; id != "" {
				headers["Last-Event-ID"] = id
			}
			fields, data = map[string]string{}, nil
		}
	}
}

// complain prints an error and waits a second.
func complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%v; again in a second\n", err)
		time.Sleep(time.Second)
	}
}

func main() {
	if given := os.Getenv("RESTMQ_URL"); given != "" {
		server = given
	}
	queue = url.PathEscape(os.Args[2])
	if len(os.Args) > 3 {
		seconds, _ = strconv.ParseFloat(os.Args[3], 64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := map[string]func(context.Context) error{"produce": produce, "work": work, "listen": listen}
	if err := run[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * Java 17 or newer, without a library. In each case, QUEUE is the name of a queue:
 *
 *   java RestMQ.java produce QUEUE         publishes each line of its input, and prints the keys
 *   java RestMQ.java work QUEUE [SECONDS]  does jobs, each under a lease of SECONDS (30) that is extended meanwhile
 *   java RestMQ.java listen QUEUE          prints live messages, and resumes where the connection broke
 *
 * A job "sleep 5" takes 5 seconds, "fail TEXT" fails; any other job is printed. RESTMQ_URL is the server.
 */
public class RestMQ {
    static final String SERVER = System.getenv().getOrDefault("RESTMQ_URL", "http://127.0.0.1:8888");
    static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static String queue;
    static double seconds = 30;
    static volatile boolean stopping;

    static HttpRequest.Builder to(String path) {
        return HttpRequest.newBuilder(URI.create(SERVER + path));
    }

    static <T> HttpResponse<T> ask(HttpRequest.Builder request, BodyHandler<T> body) throws Exception {
        var answer = HTTP.send(request.build(), body);
        if (answer.statusCode() >= 400) throw new IOException(answer.statusCode() + " " + answer.body());
        return answer;
    }

    static void produce() throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            // Repeated with the same key, a request queues its message once.
            var request = to("/q/" + queue).header("Content-Type", "text/plain")
                .header("Idempotency-Key", UUID.randomUUID().toString()).POST(BodyPublishers.ofString(line));
            System.out.println(ask(request, BodyHandlers.ofString()).body().strip());
        }
    }

    static void work() throws Exception {
        var worker = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true; // SIGTERM or Ctrl-C: the program ends when the current job is done
            try { worker.join(); } catch (InterruptedException e) { }
        }));
        while (!stopping) {
            try {
                var job = ask(to("/q/" + queue + "?raw=1&wait=5&lease=" + seconds), BodyHandlers.ofString());
                if (job.statusCode() == 200) settle(job); // 204: there was no job
            } catch (IOException away) {
                again(away);
            }
        }
    }

    static void settle(HttpResponse<String> job) throws Exception {
        var message = "/m/" + job.headers().firstValue("X-RestMQ-Key").get();
        var receipt = "receipt=" + job.headers().firstValue("X-RestMQ-Receipt").get();
        var timer = Executors.newSingleThreadScheduledExecutor();
        long everyMs = Math.round(1000 * seconds / 3);
        timer.scheduleAtFixedRate(() -> {
            try { change(message, receipt + "&lease=" + seconds); } catch (Exception e) { System.err.println(e); }
        }, everyMs, everyMs, TimeUnit.MILLISECONDS);
        try {
            perform(job.body());
            ask(to(message + "?" + receipt).DELETE(), BodyHandlers.ofString()); // ack
        } catch (IllegalArgumentException failure) { // nack: the message returns to its queue
            change(message, receipt + "&lease=0&reason=" + URLEncoder.encode(failure.getMessage(), "UTF-8"));
        } finally {
            timer.shutdownNow();
        }
    }

    static void change(String message, String fields) throws Exception {
        var request = to(message).header("Content-Type", "application/x-www-form-urlencoded");
        ask(request.POST(BodyPublishers.ofString(fields)), BodyHandlers.ofString());
    }

    static void perform(String job) throws Exception {
        var words = job.split(" ", 2);
        if (words[0].equals("fail")) throw new IllegalArgumentException(words[1]);
        if (words[0].equals("sleep")) Thread.sleep(Math.round(1000 * Double.parseDouble(words[1])));
        System.out.println("done: " + job);
    }

    static void listen() throws Exception {
        String last = null;
        while (true) {
            var request = to("/sse/" + queue);
            if (last != null) request.header("Last-Event-ID", last);
            try (Stream<String> lines = ask(request, BodyHandlers.ofLines()).body()) {
                List<String> data = new ArrayList<>();
                boolean gap = false;
                for (var each = lines.iterator(); each.hasNext(); ) {
                    var line = each.next();
                    if (line.startsWith("id: ")) last = line.substring(4);
                    else if (line.startsWith("data: ")) data.add(line.substring(6));
                    else if (line.equals("event: gap")) gap = true;
                    else if (line.isEmpty()) {
                        if (gap) System.err.println("some messages were missed");
                        else if (!data.isEmpty()) System.out.println(String.join("\n", data));
                        data.clear();
                        gap = false;
                    }
                }
            } catch (IOException | java.io.UncheckedIOException away) {
                again(away);
            }
        }
    }

    static void again(Exception problem) throws InterruptedException {
        System.err.println(problem + "; again in a second");
        Thread.sleep(1000);
    }

    public static void main(String[] arguments) throws Exception {
        queue = URLEncoder.encode(arguments[1], StandardCharsets.UTF_8).replace("+", "%20");
        if (arguments.length > 2) seconds = Double.parseDouble(arguments[2]);
        switch (arguments[0]) {
            case "produce" -> produce();
            case "work" -> work();
            default -> listen();
        }
    }
}

<?php
// PHP 8, without a library. In each case, QUEUE is the name of a queue:
//
//   php restmq.php produce QUEUE         publishes each line of its input, and prints the keys
//   php restmq.php work QUEUE [SECONDS]  does jobs, each under a lease of SECONDS (30) that is extended meanwhile
//   php restmq.php listen QUEUE          prints live messages, and resumes where the connection broke
//
// A job "sleep 5" takes 5 seconds, "fail TEXT" fails; any other job is printed. RESTMQ_URL is the server.
$server = getenv('RESTMQ_URL') ?: 'http://127.0.0.1:8888';
[, $what, $queue] = $argv;
$queue = rawurlencode($queue);
$seconds = $argv[3] ?? 30;

/** Opens a request. HTTP/1.0, because PHP's streams hold back the parts of a chunked answer. */
function open(string $method, string $url, array $headers = [], string $body = '')
{
    global $http_head;
    $options = ['method' => $method, 'header' => $headers, 'content' => $body, 'protocol_version' => 1.0,
        'ignore_errors' => true, 'timeout' => 60];
    $stream = @fopen($url, 'r', false, stream_context_create(['http' => $options]));
    if ($stream === false) throw new RuntimeException('the server is away');
    foreach (stream_get_meta_data($stream)['wrapper_data'] as $line) {
        [$name, $value] = explode(':', $line, 2) + [1 => ''];
        $http_head[strtolower($name)] = trim($value);
        if (preg_match('~^HTTP/\S+ (\d+)~', $line, $found)) $http_head = ['status' => (int) $found[1]];
    }
    if ($http_head['status'] >= 400) throw new RuntimeException(trim(stream_get_contents($stream)));
    return $stream;
}

function ask(...$request): string
{
    return stream_get_contents(open(...$request));
}

function again(callable $try): void
{
    try {
        $try();
    } catch (RuntimeException $problem) {
        fwrite(STDERR, $problem->getMessage() . "; again in a second\n");
        sleep(1);
    }
}

function produce(): void
{
    global $server, $queue;
    while (($line = fgets(STDIN)) !== false) {
        // Repeated with the same key, a request queues its message once.
        $headers = ['Content-Type: text/plain', 'Idempotency-Key: ' . bin2hex(random_bytes(16))];
        echo trim(ask('POST', "$server/q/$queue", $headers, rtrim($line, "\n"))), "\n";
    }
}

function work(): void
{
    global $server, $queue, $seconds, $http_head;
    $stopping = false;
    pcntl_async_signals(true);
    foreach ([SIGINT, SIGTERM] as $signal) pcntl_signal($signal, function () use (&$stopping) { $stopping = true; }, false);
    while (!$stopping) again(function () use ($server, $queue, $seconds) {
        $job = ask('GET', "$server/q/$queue?raw=1&wait=5&lease=$seconds");
        if ($GLOBALS['http_head']['status'] === 200) settle($job, $GLOBALS['http_head']); // 204: there was no job
    });
}

function settle(string $job, array $head): void
{
    global $server, $seconds;
    $message = "$server/m/{$head['x-restmq-key']}";
    $form = ['Content-Type: application/x-www-form-urlencoded'];
    $change = fn(array $fields) => ask('POST', $message, $form,
        http_build_query(['receipt' => $head['x-restmq-receipt']] + $fields));
    // SIGALRM interrupts the work to extend the lease.
    $every = max(1, intdiv((int) $seconds, 3));
    pcntl_signal(SIGALRM, function () use ($change, $seconds, $every) { $change(['lease' => $seconds]); pcntl_alarm($every); });
    pcntl_alarm($every);
    try {
        perform($job);
        ask('DELETE', "$message?receipt={$head['x-restmq-receipt']}"); // ack
    } catch (DomainException $failure) {
        $change(['lease' => 0, 'reason' => $failure->getMessage()]); // nack: the message returns to its queue
    } finally {
        pcntl_alarm(0);
    }
}

function perform(string $job): void
{
    [$word, $rest] = explode(' ', $job, 2) + [1 => ''];
    if ($word === 'fail') throw new DomainException($rest);
    $until = microtime(true) + ($word === 'sleep' ? (float) $rest : 0);
    while (microtime(true) < $until) usleep(50000); // a signal ends a longer sleep
    echo "done: $job\n";
}

function listen(): void
{
    global $server, $queue;
    $last = '';
    for (;;) again(function () use ($server, $queue, &$last) {
        $stream = open('GET', "$server/sse/$queue", $last === '' ? [] : ["Last-Event-ID: $last"]);
        $event = ['data' => []];
        while (($line = fgets($stream)) !== false) {
            [$name, $value] = explode(': ', rtrim($line, "\r\n"), 2) + [1 => ''];
            if ($name === 'data') $event['data'][] = $value;
            elseif ($name !== '') $event[$name] = $value;
            else {
                if (($event['event'] ?? '') === 'gap') fwrite(STDERR, "some messages were missed\n");
                elseif ($event['data']) echo implode("\n", $event['data']), "\n";
                $last = $event['id'] ?? $last;
                $event = ['data' => []];
            }
        }
        throw new RuntimeException('the stream ended');
    });
}

$what();

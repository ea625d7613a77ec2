# Ruby 3, without a gem. In each case, QUEUE is the name of a queue:
#
#   ruby restmq.rb produce QUEUE         publishes each line of its input, and prints the keys
#   ruby restmq.rb work QUEUE [SECONDS]  does jobs, each under a lease of SECONDS (30) that is extended meanwhile
#   ruby restmq.rb listen QUEUE          prints live messages, and resumes where the connection broke
#
# A job "sleep 5" takes 5 seconds, "fail TEXT" fails; any other job is printed. RESTMQ_URL is the server.
require "erb"
require "net/http"
require "securerandom"

SERVER = URI(ENV.fetch("RESTMQ_URL", "http://127.0.0.1:8888"))
WHAT, QUEUE, SECONDS = ARGV[0], ERB::Util.url_encode(ARGV[1]), (ARGV[2] || 30).to_f
AWAY = [SystemCallError, IOError, Timeout::Error, Net::HTTPFatalError, Net::ProtocolError].freeze
$stdout.sync = true

# Sends a request on a connection of its own; the answer is that of the block, which reads a stream.
def ask(kind, path, body = nil, headers = {}, &block)
  request = kind.new(path, headers)
  body.is_a?(Hash) ? request.set_form_data(body) : request.body = body
  answer = Net::HTTP.start(SERVER.host, SERVER.port, use_ssl: SERVER.scheme == "https", read_timeout: 60) do |http|
    http.request(request, &block)
  end
  answer.value # raises unless it is a success
  answer
end

def again_when_it_is_away
  yield
rescue *AWAY => e
  warn "#{e.message}; again in a second"
  sleep 1
end

def produce
  $stdin.each_line(chomp: true) do |line|
    # Repeated with the same key, a request queues its message once.
    headers = { "Content-Type" => "text/plain", "Idempotency-Key" => SecureRandom.uuid }
    puts ask(Net::HTTP::Post, "/q/#{QUEUE}", line, headers).body.strip
  end
end

def work
  stopping = false
  %w[INT TERM].each { |name| trap(name) { stopping = true } }
  until stopping
    again_when_it_is_away do
      answer = ask(Net::HTTP::Get, "/q/#{QUEUE}?raw=1&wait=5&lease=#{SECONDS}")
      settle(answer) if answer.code == "200" # 204: there was no job
    end
  end
end

def settle(answer)
  message, receipt = "/m/#{answer["X-RestMQ-Key"]}", answer["X-RestMQ-Receipt"]
  extending = Thread.new do
    loop { again_when_it_is_away { sleep(SECONDS / 3) && ask(Net::HTTP::Post, message, { receipt:, lease: SECONDS }) } }
  end
  perform(answer.body)
  ask(Net::HTTP::Delete, "#{message}?receipt=#{receipt}") # ack
rescue ArgumentError => e
  ask(Net::HTTP::Post, message, { receipt:, lease: 0, reason: e.message }) # nack: it returns to its queue
ensure
  extending.kill
end

def perform(job)
  word, rest = job.split(" ", 2)
  raise ArgumentError, rest if word == "fail"

  sleep(rest.to_f) if word == "sleep"
  puts "done: #{job}"
end

def listen
  last = nil
  loop do
    again_when_it_is_away do
      ask(Net::HTTP::Get, "/sse/#{QUEUE}", nil, { "Last-Event-ID" => last }.compact) do |answer|
        text = +""
        answer.read_body do |chunk|
          text << chunk
          while (event = text.slice!(/\A.*?\n\n/m))
            field = ->(name) { event.scan(/^#{name}: (.*)$/).flatten }
            warn "some messages were missed" if field["event"] == ["gap"]
            puts field["data"].join("\n") if field["event"] != ["gap"] && field["data"].any?
            last = field["id"].first || last
          end
        end
      end
      sleep 1
    end
  end
end

send(WHAT)

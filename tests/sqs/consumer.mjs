// Sends 50 messages, and handles them with sqs-consumer; five of them fail once. Prints the numbers as JSON.
import { CreateQueueCommand, GetQueueAttributesCommand, SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

const [endpoint, QueueName] = process.argv.slice(2);
const sqs = new SQSClient({ endpoint, region: "us-east-1" });
const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName }));
for (let batch = 0; batch < 5; batch++) {
  const Entries = [...Array(10).keys()].map((n) => ({
    Id: `${n}`,
    MessageBody: `${batch}${n}`,
    MessageAttributes: { number: { DataType: "Number", StringValue: `${n}` } },
  }));
  await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
}
const handled = new Set();
const failed = new Set();
await new Promise((resolve, reject) => {
  const consumer = Consumer.create({
    queueUrl: QueueUrl,
    sqs,
    batchSize: 10,
    waitTimeSeconds: 5,
    messageAttributeNames: ["All"],
    terminateVisibilityTimeout: true,
    handleMessage: async (message) => {
      if (message.MessageAttributes.number.StringValue === "7" && !failed.has(message.Body)) {
        failed.add(message.Body);
        throw new Error("handled at the second delivery");
      }
      handled.add(message.Body);
      return message;
    },
  });
  consumer.on("processing_error", () => {});
  consumer.on("error", reject);
  consumer.on("message_processed", () => handled.size === 50 && consumer.stop());
  consumer.on("stopped", resolve);
  consumer.start();
});
const AttributeNames = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames }));
console.log(JSON.stringify({ handled: handled.size, failed: failed.size, left: AttributeNames.map((name) => Attributes[name]) }));

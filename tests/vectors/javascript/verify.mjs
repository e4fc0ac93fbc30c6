// Vectors as JSON on standard input; what npm's standardwebhooks says of each, by name, on standard output.
import { readFileSync } from "node:fs";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

function holds({ secret, id, timestamp, signature, body }) {
  Date.now = () => Number(timestamp) * 1000; // it is the signature that is looked at, not its age
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
  try {
    new Webhook(secret).verify(body, headers);
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    if (!(error instanceof SyntaxError)) throw error; // it verified, and then could not parse an empty body
  }
  return true;
}

const vectors = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(Object.fromEntries(vectors.map((vector) => [vector.name, holds(vector)]))));

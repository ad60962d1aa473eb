// Every kind of call, by gRPC's own client for Node, against the daemon at TARGET.
//
//   client.cjs PROTO TARGET [CA CERTIFICATE KEY]
//
// PROTO: the folder of the contract. Ends with status 0 and prints `all calls behave` when each behaves as the contract says.
"use strict";

const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

// Far more than is generated before a call is cancelled, or its deadline passes.
const ENDLESS = 131072;

// The parts that are used here of contracts that are not ours.
const HEALTH = `syntax = "proto3"; package grpc.health.v1;
    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; } ServingStatus status = 1; }
    service Health {
      rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
      rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
    }`;
const REFLECTION = `syntax = "proto3"; package grpc.reflection.v1;
    message ServerReflectionRequest { string list_services = 7; }
    message ServiceResponse { string name = 1; }
    message ListServiceResponse { repeated ServiceResponse service = 1; }
    message ServerReflectionResponse { ListServiceResponse list_services_response = 6; }
    service ServerReflection {
      rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
    }`;
const DETAILS = `syntax = "proto3"; package google.rpc;
    message Any { string type_url = 1; bytes value = 2; }
    message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
    message ErrorInfo { string reason = 1; string domain = 2; }
    message BadRequest {
      message FieldViolation { string field = 1; string description = 2; }
      repeated FieldViolation field_violations = 1;
    }`;

const [proto, target, ...files] = process.argv.slice(2);
const read = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const load = (text) => grpc.loadPackageDefinition(loader.fromJSON(protobuf.parse(text, { keepCase: true }).root.toJSON(), read));
const { recurve } = grpc.loadPackageDefinition(loader.loadSync("recurve/v1/inference.proto", { ...read, includeDirs: [proto] }));
const [ca, certificate, key] = files.map((file) => readFileSync(file));
const credentials = ca ? grpc.credentials.createSsl(ca, key, certificate) : grpc.credentials.createInsecure();

const inference = new recurve.v1.Inference(target, credentials);
const health = new (load(HEALTH).grpc.health.v1.Health)(target, credentials);
const reflection = new (load(REFLECTION).grpc.reflection.v1.ServerReflection)(target, credentials);
const rpc = protobuf.parse(DETAILS, { keepCase: true }).root.lookup("google.rpc");

const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
const request = (max_tokens, fields) => ({
  tokens: { ids: [2, 9] },
  sampling: { temperature: 0 },
  max_tokens,
  ignore_eos: true,
  ...fields,
});
const generate = (message, seconds = 60) => inference.Generate(message, within(seconds));

// The messages of a stream, and the error that it ends with.
const all = (call) =>
  new Promise((resolve) => {
    const messages = [];
    call.on("data", (message) => messages.push(message));
    call.on("end", () => resolve({ messages }));
    call.on("error", (error) => resolve({ messages, error }));
  });
const answer = (client, method, message) =>
  new Promise((resolve, reject) => {
    client[method](message, within(60), (error, response) => (error ? reject(error) : resolve(response)));
  });

async function streams() {
  const { messages, error } = await all(generate(request(8)));
  assert.ifError(error);
  const last = messages.pop();
  assert(messages.every((message) => message.event === "delta"));
  assert.strictEqual(messages.flatMap((message) => message.delta.tokens).length, 8);
  assert.strictEqual(last.finish.reason, "FINISH_REASON_MAX_TOKENS");
}

async function answersOneMessage() {
  const { logprobs } = await answer(inference, "Score", { tokens: { ids: [2, 9, 7] } });
  assert.strictEqual(logprobs.length, 2);
}

async function explainsErrors() {
  const { error } = await all(generate(request(8, { top_logprobs: 99, sampling: { top_p: 7 } })));
  assert.strictEqual(error.code, grpc.status.INVALID_ARGUMENT);
  const status = rpc.Status.decode(error.metadata.get("grpc-status-details-bin")[0]);
  const detail = (name) => rpc[name].decode(status.details.find((any) => any.type_url.endsWith(`/google.rpc.${name}`)).value);
  assert.strictEqual(detail("ErrorInfo").reason, "INVALID_REQUEST");
  const fields = detail("BadRequest").field_violations.map((violation) => violation.field);
  assert.deepStrictEqual(fields.sort(), ["sampling.top_p", "top_logprobs"]);
}

async function passesADeadline() {
  const { error } = await all(generate(request(ENDLESS), 0.5));
  assert.strictEqual(error.code, grpc.status.DEADLINE_EXCEEDED);
}

async function cancels() {
  const call = generate(request(ENDLESS));
  call.once("data", () => call.cancel());
  const { messages, error } = await all(call);
  assert(messages.length > 0);
  assert.strictEqual(error.code, grpc.status.CANCELLED);
}

async function isHealthy() {
  for (const service of ["", "recurve.v1.Inference"]) {
    assert.strictEqual((await answer(health, "Check", { service })).status, "SERVING");
  }
  const watch = health.Watch({ service: "" }, within(60));
  watch.once("data", () => watch.cancel());
  const { messages } = await all(watch);
  assert.strictEqual(messages[0].status, "SERVING");
}

async function describesItself() {
  const call = reflection.ServerReflectionInfo(within(60));
  call.write({ list_services: "" });
  call.end();
  const { messages } = await all(call);
  const services = messages[0].list_services_response.service.map(({ name }) => name);
  assert(services.includes("recurve.v1.Inference") && services.includes("grpc.health.v1.Health"), `${services}`);
}

async function main() {
  for (const check of [streams, answersOneMessage, explainsErrors, passesADeadline, cancels, isHealthy, describesItself]) {
    await check();
  }
  for (const client of [inference, health, reflection]) client.close();
  console.log("all calls behave");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

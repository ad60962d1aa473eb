"""Every kind of call, by gRPC's own client for Python, against the daemon at TARGET.

    client.py TARGET [CA CERTIFICATE KEY]

Ends with status 0 and prints `all calls behave` when each behaves as the contract says. `--plain` as the first argument
leaves the channel's options alone: no authority is set for a Unix socket.
"""

import sys
import time
from pathlib import Path

import grpc
from google.rpc import error_details_pb2 as details
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from recurve.v1 import inference_pb2 as v1
from recurve.v1.inference_pb2_grpc import InferenceStub

# Far more than is generated before a call is cancelled, or its deadline passes.
ENDLESS = 131_072


def open_channel(arguments):
    options = [("grpc.default_authority", "localhost")]
    if arguments[0] == "--plain":
        options, arguments = [], arguments[1:]
    target, *files = arguments
    if not files:
        return grpc.insecure_channel(target, options=options)
    ca, certificate, key = (Path(file).read_bytes() for file in files)
    credentials = grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=certificate)
    return grpc.secure_channel(target, credentials)


def request(max_tokens, **fields):
    sampling = v1.Sampling(temperature=0)
    tokens = v1.TokenIds(ids=[2, 9])
    return v1.GenerateRequest(tokens=tokens, sampling=sampling, max_tokens=max_tokens, ignore_eos=True, **fields)


def failure(call):
    """The error that a call ends with."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def streams(stub):
    *deltas, last = stub.Generate(request(8), timeout=60)
    assert [message.WhichOneof("event") for message in deltas] == ["delta"] * len(deltas), deltas
    assert sum(len(message.delta.tokens) for message in deltas) == 8, deltas
    assert last.finish.reason == v1.FINISH_REASON_MAX_TOKENS and last.finish.usage.completion_tokens == 8, last


def answers_one_message(stub):
    scores = stub.Score(v1.ScoreRequest(tokens=v1.TokenIds(ids=[2, 9, 7])), timeout=60)
    assert len(scores.logprobs) == 2, scores


def explains_errors(stub):
    wrong = request(8, top_logprobs=99)
    wrong.sampling.top_p = 7
    error = failure(stub.Generate(wrong, timeout=60))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    found = {}
    for detail in rpc_status.from_call(error).details:
        for kind in (details.ErrorInfo, details.BadRequest, details.RequestInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(detail.value)
    assert found[details.ErrorInfo].reason == "INVALID_REQUEST", found
    assert found[details.ErrorInfo].domain == "recurve.dev", found
    fields = {violation.field for violation in found[details.BadRequest].field_violations}
    assert fields == {"sampling.top_p", "top_logprobs"}, fields


def passes_a_deadline(stub):
    begun = time.monotonic()
    error = failure(stub.Generate(request(ENDLESS), timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - begun < 30


def cancels(stub):
    call = stub.Generate(request(ENDLESS), timeout=60)
    assert next(call).HasField("delta")
    call.cancel()
    assert failure(call).code() == grpc.StatusCode.CANCELLED


def is_healthy(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "recurve.v1.Inference"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status
        assert status == health_pb2.HealthCheckResponse.SERVING, (service, status)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def describes_itself(channel):
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"recurve.v1.Inference", "grpc.health.v1.Health"} <= set(services), services


with open_channel(sys.argv[1:]) as channel:
    inference = InferenceStub(channel)
    for check in (streams, answers_one_message, explains_errors, passes_a_deadline, cancels):
        check(inference)
    for check in (is_healthy, describes_itself):
        check(channel)
print("all calls behave")

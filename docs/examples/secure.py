"""Streams an answer over mutual TLS, and prints every detail of an error. `docs/python.md` explains both."""

import sys
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from recurve.v1 import inference_pb2 as v1
from recurve.v1.inference_pb2_grpc import InferenceStub

target, ca, certificate, key, prompt = sys.argv[1:6]

credentials = grpc.ssl_channel_credentials(
    root_certificates=Path(ca).read_bytes(),
    private_key=Path(key).read_bytes(),
    certificate_chain=Path(certificate).read_bytes(),
)


def details(error):
    """The messages of google.rpc that an error carries, by their types."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details if status else ():
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(detail.value)
    return found


with grpc.secure_channel(target, credentials) as channel:
    chat = v1.Chat(messages=[v1.ChatMessage(role="user", content=prompt)])
    request = v1.GenerateRequest(chat=chat, max_tokens=128)
    try:
        for message in InferenceStub(channel).Generate(request, timeout=60):
            print(message.delta.text, end="", flush=True)
    except grpc.RpcError as error:
        found = details(error)
        if ErrorInfo in found:
            print("reason:", found[ErrorInfo].reason)
        if BadRequest in found:
            for violation in found[BadRequest].field_violations:
                print("field:", violation.field, "-", violation.description)
        if RetryInfo in found:
            print("retry after:", found[RetryInfo].retry_delay.ToTimedelta())
        sys.exit(f"{error.code().name}: {error.details()}")

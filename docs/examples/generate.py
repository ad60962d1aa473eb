"""Streams an answer of a recurve daemon. `docs/python.md` tells how to make its client from the .proto files."""

import sys

import grpc

from recurve.v1 import inference_pb2 as v1
from recurve.v1.inference_pb2_grpc import InferenceStub

target, prompt = sys.argv[1], " ".join(sys.argv[2:])
with grpc.insecure_channel(target, options=[("grpc.default_authority", "localhost")]) as channel:
    chat = v1.Chat(messages=[v1.ChatMessage(role="user", content=prompt)])
    request = v1.GenerateRequest(chat=chat, max_tokens=128)
    for message in InferenceStub(channel).Generate(request, timeout=60):
        if message.HasField("delta"):
            print(message.delta.text, end="", flush=True)
        elif message.HasField("finish"):
            reason = v1.FinishReason.Name(message.finish.reason)
            print(f"\n[{reason}, {message.finish.usage.completion_tokens} tokens]")

"""A Bedrock of our own. What it is sent is held to botocore: signatures to its signer, bodies to its model of the service. What
it says is held to the same model, and test_clouds.py lets boto3 itself read it."""

import base64
import binascii
import http.server
import json
import struct
import threading
import urllib.parse

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.parsers import create_parser
from botocore.validate import ParamValidator

REGION = "eu-west-1"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session+token/with=signs"
SERVICE = botocore.session.get_session().get_service_model("bedrock-runtime")
OPERATIONS = {"converse": SERVICE.operation_model("Converse"), "converse-stream": SERVICE.operation_model("ConverseStream")}
USAGE = {"inputTokens": 11, "outputTokens": 5, "totalTokens": 16}


def is_document(shape):
    return getattr(shape, "is_document_type", False)


def from_wire(value, shape):
    """JSON as the service model has it: blobs are bytes."""
    if shape.type_name == "blob":
        return base64.b64decode(value, validate=True)
    if shape.type_name == "structure" and not is_document(shape) and isinstance(value, dict):
        return {name: from_wire(one, shape.members[name]) if name in shape.members else one for name, one in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [from_wire(one, shape.member) for one in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: from_wire(one, shape.value) for name, one in value.items()}
    return value


def invalid(value, shape):
    """What the service model has against a value, if anything."""
    report = ParamValidator().validate(value, shape)
    return report.generate_report() if report.has_errors() else None


def signature_fault(method, path, headers, body):
    """What botocore's signer has against a request, if anything."""
    given = headers.get("authorization", "")
    if not given.startswith("AWS4-HMAC-SHA256 "):
        return "the request is not signed"
    fields = dict(part.split("=", 1) for part in given.removeprefix("AWS4-HMAC-SHA256 ").split(", "))
    request = AWSRequest(method=method, url=f"http://{headers['host']}{path}", data=body)
    for name in fields["SignedHeaders"].split(";"):
        request.headers[name] = headers[name]
    missing = {"host", "x-amz-date", "x-amz-security-token"} - set(fields["SignedHeaders"].split(";"))
    if missing:
        return f"{missing} are not signed"
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN), "bedrock", REGION)
    canonical = signer.canonical_request(request)
    if fields["Credential"] != signer.scope(request):
        return f"the scope is {fields['Credential']}"
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    return None if fields["Signature"] == expected else f"the signature is not {expected} of\n{canonical}"


def frame(headers, payload):
    block = b"".join(struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
                     for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + block + payload
    return message + struct.pack("!I", binascii.crc32(message))


def event(kind, value):
    shape = OPERATIONS["converse-stream"].output_shape.members["stream"].members[kind]
    fault = invalid(from_wire(value, shape), shape)
    assert fault is None, f"{kind}: {fault}"
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(value).encode())


def exception(kind, message):
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def stream_of(blocks, stop, fails=None):
    """The frames of an answer. With `fails` it ends in an exception of that kind."""
    out = [event("messageStart", {"role": "assistant"})]
    for at, block in enumerate(blocks):
        if "toolUse" in block:
            call = block["toolUse"]
            out.append(event("contentBlockStart", {"contentBlockIndex": at, "start": {
                "toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}}))
            text = json.dumps(call["input"])
            deltas = [{"toolUse": {"input": text[:5]}}, {"toolUse": {"input": text[5:]}}]
        elif "reasoningContent" in block:
            thought = block["reasoningContent"]["reasoningText"]
            deltas = [{"reasoningContent": {"text": thought["text"]}}, {"reasoningContent": {"signature": thought["signature"]}}]
        else:
            half = len(block["text"]) // 2
            deltas = [{"text": block["text"][:half]}, {"text": block["text"][half:]}]
        out += [event("contentBlockDelta", {"contentBlockIndex": at, "delta": delta}) for delta in deltas]
        out.append(event("contentBlockStop", {"contentBlockIndex": at}))
    if fails:
        return [*out, exception(fails, "it broke")]
    return [*out, event("messageStop", {"stopReason": stop}), event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}})]


def answer_of(blocks, stop):
    body = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": stop, "usage": USAGE,
            "metrics": {"latencyMs": 1}}
    shape = OPERATIONS["converse"].output_shape
    fault = invalid(from_wire(body, shape), shape)
    assert fault is None, fault
    text = json.dumps(body).encode()
    parsed = create_parser("rest-json").parse({"status_code": 200, "headers": {}, "body": text}, shape)
    assert parsed["output"]["message"]["content"] == blocks and parsed["usage"] == USAGE
    return text


def usual(body):
    """The blocks that answer a request, and why they end."""
    last = body["messages"][-1]["content"]
    if "thinking" in body.get("additionalModelRequestFields", {}):
        thought = {"reasoningText": {"text": "Let me think.", "signature": "c2lnbmVk"}}
        return [{"reasoningContent": thought}, {"text": "I thought."}], "end_turn"
    if "toolConfig" in body and not any("toolResult" in block for block in last):
        spec = body["toolConfig"]["tools"][0]["toolSpec"]
        return [{"toolUse": {"toolUseId": "tooluse_1", "name": spec["name"], "input": {"city": "Paris"}}}], "tool_use"
    return [{"text": "Hello from Bedrock"}], "end_turn"


class Bedrock:
    """The server. `refuse` makes it answer with an error, `fails` ends streams in an exception."""

    def __init__(self):
        self.seen, self.faults, self.refuse, self.fails = [], [], None, None
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                kind, status, answer, extra = fake.answer(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("x-amzn-requestid", "aws-request-1")
                for name, value in extra.items():
                    self.send_header(name, value)
                if isinstance(answer, bytes):
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                    return
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                whole = b"".join(answer)
                # Cut where no frame ends.
                for piece in (whole[at:at + 97] for at in range(0, len(whole), 97)):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, path, headers, body):
        fault = signature_fault(method, path, headers, body)
        if fault:
            self.faults.append(fault)
            return self.error(403, "InvalidSignatureException", fault)
        _, _, model, call = path.split("/")
        operation, body = OPERATIONS[call], json.loads(body)
        params = from_wire({**body, "modelId": urllib.parse.unquote(model)}, operation.input_shape)
        fault = invalid(params, operation.input_shape)
        if fault:
            self.faults.append(fault)
            return self.error(400, "ValidationException", fault)
        self.seen.append(params)
        if self.refuse:
            return self.error(*self.refuse)
        blocks, stop = usual(body)
        if call == "converse":
            return "application/json", 200, answer_of(blocks, stop), {}
        return "application/vnd.amazon.eventstream", 200, stream_of(blocks, stop, self.fails), {}

    @staticmethod
    def error(status, kind, message):
        name = f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"
        return "application/json", status, json.dumps({"message": message}).encode(), {"x-amzn-errortype": name}

    def reset(self):
        self.seen, self.faults, self.refuse, self.fails = [], [], None, None

    def stop(self):
        self.server.shutdown()

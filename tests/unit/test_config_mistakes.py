"""Every mistake is one line: where, key, what is wrong, cure."""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from relay.config.fields import Section
from relay.config.load import load
from relay.config.problems import Mistakes
from tests.support.cli import SECRET

ENDPOINT = "endpoints:\n  - name: crm\n    url: https://crm.example.com/\n    signing: none\n"
DURATION = "not a duration; write 250ms, 10s, 5m, 5m30s, 1h, 7d or a number of seconds"
TAKEN_FOR = "which YAML takes it for; correct it, or put it in quotes if it is text"
UNESCAPED = "its user or password has @ / ? # or a bracket; write %40 %2F %3F %23, %5B and %5D for them"
NO_TAG = "has a tag that a configuration has no use for"
IN_QUOTES = "is in quotes, which are a part of it here, as docker --env-file keeps them; take them out"
PASTED = "is in typographic quotes, which YAML takes for a part of it; write \" or ' in their place"
NOT_LIVEKIT = "not the address of a LiveKit server; write it like wss://livekit.example.com"
NOT_A_SECRET = "not a signing secret: whsec_ and 24 to 64 bytes in base64; `speech-relay init` makes one"
ADDRESS = "not an address; write it like 127.0.0.1:8790"
ALIGN = "indented unlike the lines around it; align it with the keys or list items beside it"
UNQUOTED = "put text that has one of ?,[]{} in it in quotes"
NO_KEY = (
    "no key can be here; align it with the keys beside it, write a blank after the `:` of the line above, and put "
    "text that has `: ` in it in quotes"
)

MISTAKES = {
    "unknown section": ("captur: {}", "F:1: captur: unknown key; did you mean capture?"),
    "unknown key": ("livekit:\n  api_secrt: x", "F:2: livekit.api_secrt: unknown key; did you mean api_secret?"),
    "unknown and unlike any": (
        "livekit:\n  flavour: x",
        "F:2: livekit.flavour: unknown key; known here: url, api_key, api_secret, agent_name",
    ),
    "a key without a value": (
        "outbox: {url: }",
        "F:1: outbox.url: has no value; write one, or take the key out",
    ),
    "a section without a value": (
        "capture:\n  stt:",
        "F:2: capture.stt: has no value; write one, or take the key out",
    ),
    "an endpoint's key without a value": (
        "endpoints:\n- name: crm\n  url:\n  signing: none",
        "F:3: endpoints[crm].url: has no value; write one, or take the key out",
    ),
    "a key of another section": ("visible: true", "F:1: visible: unknown key here; its place is capture.visible"),
    "a key of an endpoint, outside": (
        "egress: {public_only: true}",
        "F:1: egress: unknown key here; its place is endpoints[].egress",
    ),
    "a key of several sections": (
        "provider: silero",
        "F:1: provider: unknown key here; its place is capture.vad.provider or capture.stt.provider or "
        "capture.realtime.provider",
    ),
    "a section inside another": (
        "capture:\n  endpoints: []",
        "F:2: capture.endpoints: unknown key here; its place is endpoints, at the beginning of a line",
    ),
    "a key that a former name has too": (
        "listen: 127.0.0.1:1",
        "F:1: listen: unknown key here; its place is api.listen",
    ),
    "unknown key of an endpoint": (
        ENDPOINT + "    evnts: []",
        "F:5: endpoints[crm].evnts: unknown key; did you mean events?",
    ),
    "key twice": ("outbox: {}\nadmin: {}\noutbox: {}", "F:3: outbox: written twice, first in line 1; keep one"),
    "key that is not text": ("on: 1", "F:1: on: a key that is not text; put it in quotes"),
    "alias by accident": ("capture:\n  rooms: [*]", 'F:2: not YAML: a word cannot begin with *; quote it: "*"'),
    "tab": ("capture:\n\trooms: []", "F:2: not YAML: indented with a tab; use spaces"),
    "open quote": ('outbox:\n  url: "sqlite', "F:2: not YAML: a quote that is not closed"),
    "a key too far to the left": ("capture:\n    vad: none\n  rooms: []", f"F:3: not YAML: {ALIGN}"),
    "a key beside list items": ("endpoints:\n  - name: a\n  url: x", f"F:3: not YAML: {ALIGN}"),
    "a list item beside keys": ("endpoints:\n  name: a\n  - url: x", f"F:3: not YAML: {ALIGN}"),
    "a key too far to the right": ("capture:\n  vad: none\n   rooms: []", f"F:3: not YAML: {NO_KEY}"),
    "no blank after the colon": ("endpoints:\n  - name:crm\n    url: x", f"F:3: not YAML: {NO_KEY}"),
    "no colon": ("outbox: {}\ncapture", "F:2: not YAML: neither `key: value` nor a list item; write one of them"),
    "an open bracket": (
        "capture:\n  rooms: [a\n  vad: none",
        f"F:2: not YAML: a [ that is not closed, or a missing comma after an item; {UNQUOTED}",
    ),
    "an open brace": (
        "capture: {vad: none\nspeech: {}",
        f"F:1: not YAML: a {{ that is not closed, or a missing comma after a value; {UNQUOTED}",
    ),
    "a question mark between braces": (
        "endpoints: [{name: crm, url: https://example.com/?key=1}]",
        f"F:1: not YAML: a {{ that is not closed, or a missing comma after a value; {UNQUOTED}",
    ),
    "half in quotes": (
        "capture:\n  rooms: 'a' b",
        "F:2: not YAML: text after the end of a value; put all of it in one pair of quotes",
    ),
    "a sign of YAML's": ("livekit:\n  api_key: @abc", "F:2: not YAML: a word cannot begin with @; quote it"),
    "a path of Windows": (
        'endpoints:\n- tls: {ca: "C:\\certs\\ca.pem"}',
        "F:2: not YAML: an escape without a meaning; write \\\\ for a \\, or use single quotes",
    ),
    "a no-break space": (
        "capture:\n\u00a0 vad: none\n  rooms: []",
        "F:2: not YAML: indented with a character that looks like a space; use spaces",
    ),
    "a section twice": (
        "outbox:\n  retention: 1d\noutbox:\n  retention: 2d",
        "F:3: outbox: written twice, first in line 1; keep one",
    ),
    "a section that is off": (ENDPOINT + "    breaker: off", "F:5: endpoints[crm].breaker: write null for none"),
    "a time that is never": ("capture: {away_after: never}", "F:1: capture.away_after: write null for none"),
    "an option of the plugin": (
        "capture:\n  stt: {provider: deepgram, model: nova-3}",
        "F:2: capture.stt.model: unknown key; if it is an option of the plugin, write options: {model: …}",
    ),
    "a number for a secret": (
        "endpoints:\n- {name: crm, url: 'http://a.example', secret: 123}",
        "F:2: endpoints[crm].secret: not text; put it in quotes",
    ),
    "a URL to listen on": ("api: {listen: 'http://127.0.0.1:1'}", f"F:1: api.listen: {ADDRESS}"),
    "a star to listen on": ("api: {listen: '*:1'}", f"F:1: api.listen: {ADDRESS}"),
    "an address without its brackets": ("api: {listen: '::1:8790'}", f"F:1: api.listen: {ADDRESS}"),
    "control character": ("a: \x01", "F: not YAML: it has a character that YAML does not allow"),
    "a list": ("- a", "F:1: not a mapping; begin with a section such as `endpoints:`"),
    "not a section": ("speech: 5", "F:1: speech: not a section; write `key: value` lines under it"),
    "endpoints by name": (
        "endpoints:\n  crm:\n    url: https://a.example",
        "F:1: endpoints: not a list; begin each endpoint with `- name: …`",
    ),
    "not a list": ('capture:\n  rooms: "a-*"', "F:2: capture.rooms: not a list; write it like [a, b]"),
    "not text": ("capture:\n  rooms:\n  - a\n  - 5", "F:4: capture.rooms[1]: not text; put it in quotes"),
    "not a duration": ("speech:\n  merge_gap: soon", f"F:2: speech.merge_gap: {DURATION}"),
    "negative duration": ("outbox:\n  retention: -1", f"F:2: outbox.retention: {DURATION}"),
    "endless duration": ("outbox:\n  retention: .inf", f"F:2: outbox.retention: {DURATION}"),
    "yes for a duration": ("outbox:\n  retention: yes", f"F:2: outbox.retention: {DURATION}"),
    "no time at all": (ENDPOINT + "    timeout: 0s", "F:5: endpoints[crm].timeout: is zero; it must be longer"),
    "not a number": (
        ENDPOINT + "    concurrency: many",
        "F:5: endpoints[crm].concurrency: not a whole number; write it in digits",
    ),
    "yes for a whole number": (
        ENDPOINT + "    concurrency: true",
        "F:5: endpoints[crm].concurrency: a yes or no is not a number; write it in digits",
    ),
    "yes for a number": (
        ENDPOINT + "    retry: {jitter: on}",
        "F:5: endpoints[crm].retry.jitter: a yes or no is not a number; write it in digits",
    ),
    "number out of range": (
        ENDPOINT + "    concurrency: 0",
        "F:5: endpoints[crm].concurrency: should be greater than or equal to 1",
    ),
    "share out of range": ("capture: {max_load: 2}", "F:1: capture.max_load: should be less than or equal to 1"),
    "not yes or no": (
        ENDPOINT + "    include: {text: maybe}",
        "F:5: endpoints[crm].include.text: not a yes or no; write true or false",
    ),
    "unknown choice": (
        "capture:\n  vad: webrtc",
        "F:2: capture.vad.provider: not a possible value; one of silero, livekit or none",
    ),
    "realtime beside what it replaces": (
        "capture:\n  stt: deepgram\n  realtime: openai",
        "F:1: capture: has realtime, which takes the place of stt; take stt out, or realtime",
    ),
    "realtime beside all that it replaces": (
        "capture:\n  vad: silero\n  stt: moonshine\n  realtime: {provider: openai, model: gpt-realtime}",
        "F:1: capture: has realtime, which takes the place of vad and stt; take vad and stt out, or realtime",
    ),
    "observe beside what it replaces": (
        "capture:\n  vad: silero\n  forward_transcripts: true\n  observe: {agent: receptionist}",
        "F:1: capture: has observe, which takes the place of vad and forward_transcripts; "
        "take vad and forward_transcripts out, or observe",
    ),
    "observe without an agent": ("capture:\n  observe: {}", "F:2: capture.observe.agent: is missing; add it"),
    "observe nobody": (
        "capture:\n  observe: {agent: ''}",
        'F:2: capture.observe.agent: is empty; name the agent, or write "*" for any',
    ),
    "unknown key of observe": (
        "capture:\n  observe: {agent: receptionist, agents: x}",
        "F:2: capture.observe.agents: unknown key; did you mean agent?",
    ),
    "realtime without a name": (
        "capture:\n  realtime: {model: gpt-realtime}",
        "F:2: capture.realtime.provider: is missing; add it",
    ),
    "unknown key of realtime": (
        "capture:\n  realtime: {provider: openai, modle: gpt-realtime}",
        "F:2: capture.realtime.modle: unknown key; did you mean model?",
    ),
    "kind of participant": (
        "capture:\n  participants: {kinds: [human]}",
        "F:2: capture.participants.kinds[0]: not a kind of participant; "
        "one of standard, ingress, egress, sip, agent, connector, bridge",
    ),
    "unknown event": (
        ENDPOINT + "    events:\n    - transcript.final\n    - speach.*",
        "F:7: endpoints[crm].events[1]: no event type is called speach.*; did you mean speech.*?",
    ),
    "missing url": (
        "endpoints:\n  - name: crm\n    signing: none",
        "F:2: endpoints[crm].url: is missing; add it",
    ),
    "bad url": (
        "endpoints:\n  - name: crm\n    url: crm.example.com\n    signing: none",
        "F:3: endpoints[crm].url: not an http:// or https:// URL; write it like https://example.com/hooks",
    ),
    "port 0 in a url": (
        "endpoints:\n  - name: crm\n    url: https://example.com:0/\n    signing: none",
        "F:3: endpoints[crm].url: its port is not a number from 1 to 65535",
    ),
    "credentials in a url": (
        "endpoints:\n  - name: crm\n    url: https://me:pass@example.com\n    signing: none",
        "F:3: endpoints[crm].url: carries credentials, which end up in logs; put them in headers: {Authorization: …}",
    ),
    "bad name": (
        "endpoints:\n  - name: The CRM\n    url: https://example.com",
        "F:2: endpoints[The CRM].name: not a name; lower-case letters, digits, - and _ only, at most 64",
    ),
    "a name twice": (
        ENDPOINT + ENDPOINT.removeprefix("endpoints:\n"),
        "F:5: endpoints[crm].name: another endpoint is called crm too; give each its own name",
    ),
    "not an endpoint": ("endpoints:\n  - crm", "F:2: endpoints[0]: not a section; write `key: value` lines under it"),
    "no secret": (
        "endpoints:\n  - name: my-crm\n    url: https://example.com",
        "F:2: endpoints[my-crm]: has no secret; `speech-relay init` makes one in .env as MY_CRM_WEBHOOK_SECRET, "
        "or write signing: none",
    ),
    "short secret": (
        "endpoints:\n  - name: crm\n    url: https://example.com\n    secret: whsec_c2hvcnQ=",
        f"F:4: endpoints[crm].secret: {NOT_A_SECRET}",
    ),
    "secret without its prefix": (
        f"endpoints:\n  - name: crm\n    url: https://example.com\n    secret: [{SECRET}, {SECRET[6:]}]",
        f"F:4: endpoints[crm].secret[1]: {NOT_A_SECRET}",
    ),
    "unset variable": (
        "endpoints:\n  - name: crm\n    url: https://example.com\n    secret: ${CRM_SECRET}",
        "F:4: endpoints[crm].secret: ${CRM_SECRET} is not set; set CRM_SECRET in the environment or in .env",
    ),
    "variable that is none": (
        'admin: {listen: "${A-b}"}',
        "F:1: admin.listen: not a variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${",
    ),
    "variable in a default": (
        'admin: {listen: "${A:-${B}}"}',
        "F:1: admin.listen: the default of A is a variable, which is not replaced; write a text",
    ),
    "variable without an end": (
        'admin: {listen: "${A"}',
        "F:1: admin.listen: not a variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${",
    ),
    "header of the relay's own": (
        ENDPOINT + "    headers: {Webhook-Id: x}",
        "F:5: endpoints[crm].headers: Webhook-Id is set by the relay itself; take it out",
    ),
    "no key of LiveKit's": (
        "endpoints:\n  - name: crm\n    url: https://example.com\n    signing: livekit",
        "F:2: endpoints[crm]: has no key; set livekit_key, or LIVEKIT_API_KEY and LIVEKIT_API_SECRET, "
        "to sign as LiveKit does",
    ),
    "half a key of LiveKit's": (
        ENDPOINT + "    livekit_key: {api_key: k}",
        "F:5: endpoints[crm].livekit_key.api_secret: is missing; add it",
    ),
    "authorization twice": (
        "livekit: {api_key: k, api_secret: s}\nendpoints:\n  - name: crm\n    url: https://example.com\n"
        "    signing: livekit\n    headers: {Authorization: Bearer x}",
        "F:3: endpoints[crm]: has a header Authorization, which signing: livekit sets itself; take it out",
    ),
    "no network": (
        ENDPOINT + "    egress:\n      allow: [10.0.0.0/8, 10.1.0.1/16]",
        "F:6: endpoints[crm].egress.allow[1]: not a network; write it like 10.1.0.0/16 or fd12:3456::/32, "
        "host bits zero",
    ),
    "an authority that is not there": (
        ENDPOINT + "    tls:\n      ca: no-such-ca.pem",
        "F:6: endpoints[crm].tls.ca: no-such-ca.pem cannot be read: No such file or directory; "
        "correct the path or the file's mode",
    ),
    "an authority that is none": (
        ENDPOINT + f"    tls:\n      ca: {__file__}",
        f"F:6: endpoints[crm].tls.ca: {__file__} has no certificate in PEM; it begins with -----BEGIN CERTIFICATE-----",
    ),
    "a folder for a certificate": (
        ENDPOINT + "    tls: {cert: /}",
        "F:5: endpoints[crm].tls.cert: / cannot be read: Is a directory; correct the path or the file's mode",
    ),
    "a certificate that is none": (
        ENDPOINT + f"    tls: {{cert: {__file__}}}",
        f"F:5: endpoints[crm].tls: {__file__} does not hold a certificate and its key in PEM; "
        "name the key's file in key",
    ),
    "a key that is none": (
        ENDPOINT + f"    tls: {{cert: {__file__}, key: {__file__}}}",
        f"F:5: endpoints[crm].tls: {__file__} and {__file__} are not a certificate and its key; both are files in PEM",
    ),
    "a key of nothing": (
        ENDPOINT + f"    tls: {{key: {__file__}}}",
        "F:5: endpoints[crm].tls: has a key and no cert; name the certificate that the key belongs to",
    ),
    "header with a line break": (
        ENDPOINT + '    headers: {X-A: "a\\nb"}',
        "F:5: endpoints[crm].headers: the value of X-A has a line break or another control character; take it out",
    ),
    "header that is no name": (
        ENDPOINT + "    headers: {X A: b}",
        "F:5: endpoints[crm].headers: 'X A' is not the name of an HTTP header; letters, digits and - only",
    ),
    "names that share a variable": (
        ENDPOINT.replace("crm", "a-b") + ENDPOINT.replace("crm", "a_b").removeprefix("endpoints:\n"),
        "F:5: endpoints[a_b].name: A_B_WEBHOOK_SECRET would hold the secret of a-b too; give one of them another name",
    ),
    "one header in two spellings": (
        ENDPOINT + "    headers: {X-A: a, x-a: b}",
        "F:5: endpoints[crm].headers: X-A and x-a are one header; keep one",
    ),
    "a secret in quotes": (
        f"endpoints:\n  - name: crm\n    url: https://example.com\n    secret: '\"{SECRET}\"'",
        f"F:4: endpoints[crm].secret: {IN_QUOTES}",
    ),
    "a room in quotes of a web page": ("capture:\n  rooms: [“*”]", f"F:2: capture.rooms[0]: {PASTED}"),
    "a room in quotes twice": ("capture:\n  rooms: ['\"*\"']", f"F:2: capture.rooms[0]: {IN_QUOTES}"),
    "an agent in quotes of a web page": ("capture: {observe: ‘*’}", f"F:1: capture.observe.agent: {PASTED}"),
    "an endpoint's rooms in quotes of a web page": (
        ENDPOINT + "    rooms: [a, „b“]",
        f"F:5: endpoints[crm].rooms[1]: {PASTED}",
    ),
    "participants in quotes of a web page": (
        ENDPOINT + "    participants: [«b»]",
        f"F:5: endpoints[crm].participants[0]: {PASTED}",
    ),
    "a server in quotes of a web page": ("livekit: {url: “wss://a.example”}", f"F:1: livekit.url: {PASTED}"),
    "a key in quotes of a web page": ("livekit: {api_key: “devkey”}", f"F:1: livekit.api_key: {PASTED}"),
    "a secret outside ASCII": (
        f"endpoints:\n  - name: crm\n    url: https://example.com\n    secret: {SECRET}\u200b",
        f"F:4: endpoints[crm].secret: {NOT_A_SECRET}",
    ),
    "a url with a line break inside": (
        'endpoints:\n  - name: crm\n    url: "https://exam\\nple.com"\n    signing: none',
        "F:3: endpoints[crm].url: has a blank or a line break inside; take it out",
    ),
    "livekit url with a tab inside": (
        'livekit: {url: "ws://a\\tb"}',
        "F:1: livekit.url: has a blank or a line break inside; take it out",
    ),
    "livekit url with credentials": (
        "livekit: {url: 'wss://key:secret@a'}",
        "F:1: livekit.url: carries credentials, which end up in logs; write livekit.api_key and livekit.api_secret",
    ),
    "livekit url with no port": ("livekit: {url: 'ws://a:port'}", f"F:1: livekit.url: {NOT_LIVEKIT}"),
    "livekit url with too high a port": ("livekit: {url: 'ws://a:99999'}", f"F:1: livekit.url: {NOT_LIVEKIT}"),
    "livekit url with half a bracket": ("livekit: {url: 'ws://[a'}", f"F:1: livekit.url: {NOT_LIVEKIT}"),
    "livekit url": (
        "livekit: {url: livekit.example.com}",
        "F:1: livekit.url: not the address of a LiveKit server; write it like wss://livekit.example.com",
    ),
    "two slashes": (
        "outbox: {url: sqlite://var/relay.db}",
        "F:1: outbox.url: not a SQLite URL; write sqlite:///relative/path.db or sqlite:////absolute/path.db",
    ),
    "postgres": (
        "outbox: {url: postgres://localhost/relay}",
        "F:1: outbox.url: the scheme is postgresql://, not postgres:; write postgresql://user@host/database",
    ),
    "port of a database": (
        "outbox: {url: 'postgresql://localhost:99999/relay'}",
        "F:1: outbox.url: its port is not a number from 1 to 65535",
    ),
    "several servers": (
        "outbox: {url: 'postgresql://a:5432,b:5432/relay'}",
        "F:1: outbox.url: several servers are written as "
        "…/database?host=a:5432&host=b:5432&target_session_attrs=read-write",
    ),
    "@ in a password": ("outbox: {url: 'postgresql://relay:a@b@localhost/relay'}", f"F:1: outbox.url: {UNESCAPED}"),
    "/ in a password": ("outbox: {url: 'postgresql://relay:a/b@localhost/relay'}", f"F:1: outbox.url: {UNESCAPED}"),
    "? in a password": ("outbox: {url: 'postgresql://relay:a?b@localhost/relay'}", f"F:1: outbox.url: {UNESCAPED}"),
    "# in a password": ("outbox: {url: 'postgresql://relay:a#b@localhost/relay'}", f"F:1: outbox.url: {UNESCAPED}"),
    "another database": (
        "outbox: {url: mysql://localhost/relay}",
        "F:1: outbox.url: not the URL of a database; "
        "write sqlite:///relative/path.db or postgresql://user@host/database",
    ),
    "postgresql with a driver": (
        "outbox: {url: postgresql+psycopg://localhost/relay}",
        "F:1: outbox.url: not the URL of a database; "
        "write sqlite:///relative/path.db or postgresql://user@host/database",
    ),
    "postgresql without a database": (
        "outbox: {url: postgresql://localhost}",
        "F:1: outbox.url: names no database; write postgresql://user@host/database",
    ),
    "memory": (
        'outbox: {url: "sqlite:///:memory:"}',
        "F:1: outbox.url: a database in memory is not durable; write sqlite:///var/relay.db",
    ),
    "address": ("admin: {listen: 8790}", "F:1: admin.listen: not text; put it in quotes"),
    "a date that is none": ("a: 2026-02-30", f"F:1: a: not a date, {TAKEN_FOR}"),
    "an integer that is none": ("a: !!int a", f"F:1: a: not a whole number, {TAKEN_FOR}"),
    "a timestamp that is none": ("a: !!timestamp x", f"F:1: a: not a date, {TAKEN_FOR}"),
    "a boolean that is none": ("a:\n  - !!bool x", f"F:2: a[0]: not a yes or no, {TAKEN_FOR}"),
    "a float that is none": ("a: {b: !!float x}", f"F:1: a.b: not a number, {TAKEN_FOR}"),
    "many digits": (
        "a: " + "9" * 5000,
        "F:1: a: a number with too many digits; write fewer, or put it in quotes if it is text",
    ),
    "octal": (
        "outbox: {retention: 010}",
        "F:1: outbox.retention: YAML takes 010 for 8; write it without the leading 0, "
        "or put it in quotes if it is text",
    ),
    "base sixty": (
        "outbox:\n  retention: 1:30",
        "F:2: outbox.retention: YAML takes 1:30 for 90; write 90 or 1m30s, or put it in quotes if it is text",
    ),
    "base sixty with a fraction": (
        "outbox: {retention: 1:30.5}",
        "F:1: outbox.retention: YAML takes 1:30 for 90; write 90 or 1m30s, or put it in quotes if it is text",
    ),
    "the language no": (
        "capture: {stt: {provider: deepgram, options: {language: no}}}",
        "F:1: capture.stt.options.language: YAML takes no for a yes or no; write true or false, "
        "or put it in quotes if it is text",
    ),
    "a tag of Python's": ("a: !!python/object/apply:os.system [x]", f"F:1: a: {NO_TAG}; take it out"),
    "a set": ("a: !!set {x}", f"F:1: a: {NO_TAG}; take it out"),
    "binary": ("a: !!binary eA==", "F:1: a: has a tag or a sign that a configuration has no use for; put it in quotes"),
    "an escape that is none": (
        'a: "\\UFFFFFFFF"',
        "F:1: not YAML: an escape or a tag without a meaning; correct it",
    ),
    "half a character": (
        'capture: {rooms: ["\\ud83d"]}',
        "F:1: capture.rooms[0]: has a NUL character, or bytes that are not UTF-8; take them out",
    ),
    "a NUL": (
        'outbox: {url: "sqlite:///a\\0b"}',
        "F:1: outbox.url: has a NUL character, or bytes that are not UTF-8; take them out",
    ),
    "an alias for itself": (
        "capture:\n  rooms: &a [*a]",
        "F:2: capture.rooms[0]: an alias for what it is a part of; write out what is meant",
    ),
    "deep": (
        "a: " + "[" * 2000 + "]" * 2000,
        "F:1: not YAML: nested more than 32 levels deep",
    ),
    "a second document": ("outbox: {}\n---\nadmin: {}", "F:2: a second document begins; take out the --- above it"),
    "a key with a line break": (
        '"a\\nb": 1',
        "F:1: a\\nb: unknown key; known here: livekit, capture, speech, outbox, dispatch, endpoints, api, admin, "
        "shutdown",
    ),
    "a long time": ("outbox: {retention: 999999999d}", "F:1: outbox.retention: too long; write 36500d or less"),
    "units out of order": ("outbox: {retention: 30s5m}", f"F:1: outbox.retention: {DURATION}"),
    "a secret that is no text": (
        "endpoints:\n  - name: crm\n    url: https://example.com\n    secret: [[a]]",
        "F:4: endpoints[crm].secret[0]: not text; put it in quotes",
    ),
    "a list for a whole number": (
        "dispatch: {concurrency: [1]}",
        "F:1: dispatch.concurrency: not a whole number; write it in digits",
    ),
    "a whole number of very many digits": (
        f"dispatch: {{concurrency: '{'9' * 5000}'}}",
        "F:1: dispatch.concurrency: not a whole number; write it in digits",
    ),
    "a list for a number": ("capture: {max_load: []}", "F:1: capture.max_load: not a number; write it in digits"),
    "a list for a path": (
        f"endpoints: [{{name: crm, url: https://example.com, secret: '{SECRET}', tls: {{ca: [a]}}}}]",
        "F:1: endpoints[crm].tls.ca: not the path of a file; write it as text",
    ),
    "an empty text": ("livekit: {agent_name: ''}", "F:1: livekit.agent_name: is empty; write it, or take it out"),
    "address without a port": (
        "admin: {listen: localhost}",
        "F:1: admin.listen: not an address; write it like 127.0.0.1:8790",
    ),
}


def mistakes_of(path: Path, **environ: str) -> list[str]:
    with pytest.raises(Mistakes) as raised:
        load(path, environ=environ)
    return [str(problem).replace(str(path), "F") for problem in raised.value.problems]


@pytest.mark.parametrize(("text", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert mistakes_of(path) == [line]


def test_every_number_refuses_a_yes_or_no() -> None:
    sections: list[type[Section]] = [Section]
    numbers = []
    for section in sections:
        sections += section.__subclasses__()
        numbers += [field for field in section.model_fields.values() if re.search(r"\b(int|float)\b", repr(field))]
    assert len(numbers) > 8
    for field in numbers:
        with pytest.raises(ValidationError, match="a yes or no is not a number"):
            TypeAdapter(
                Annotated[field.annotation, *field.metadata]  # type: ignore[arg-type]  # a type made at run time
            ).validate_python(True)


def test_all_mistakes_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{ENDPOINT}    url2: x\n    timeout: soon\nlivekit: {{ulr: x}}\nadmin: {{listen: x}}\n")
    keys = [line.split(": ")[1] for line in mistakes_of(path)]
    assert keys == ["endpoints[crm].url2", "endpoints[crm].timeout", "livekit.ulr", "admin.listen"]


def test_the_message_is_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: 2\n")
    with pytest.raises(Mistakes) as raised:
        load(path, environ={})
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]
    assert len(raised.value.problems) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path / "config.yaml") == ["F: no such file; `speech-relay init` writes one"]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert mistakes_of(path) == ["F: UTF-16, not UTF-8 text; save it as UTF-8"]
    path.write_bytes(b"\xff\xff")
    assert mistakes_of(path) == ["F: not UTF-8 text; save it as UTF-8"]
    path.write_text("a: 1", encoding="utf-16-le")
    assert mistakes_of(path) == ["F: has NUL characters, as UTF-16 text does; save it as UTF-8"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_dotenv_in_utf16_is_told_with_its_cure(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / ".env").write_text("LIVEKIT_URL=ws://a\n", encoding=encoding)
    (line,) = mistakes_of(tmp_path / "config.yaml")
    assert line.startswith(f"{tmp_path}/.env: ")
    assert "UTF-16" in line
    assert line.endswith("; save it as UTF-8")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    refused = "cannot be read: a pipe, which cannot be read again after a change; use a file"
    assert mistakes_of(tmp_path / "config.yaml") == [f"F: {refused}"]
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").write_text(ENDPOINT + f"    tls: {{ca: {tmp_path}/.env}}")
    os.mkfifo(tmp_path / ".env")
    assert mistakes_of(tmp_path / "config.yaml") == [f"{tmp_path}/.env: {refused}"]


def test_a_file_that_never_ends_is_refused_as_too_large(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    assert mistakes_of(tmp_path / "config.yaml") == ["F: cannot be read: larger than 1 MiB"]
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / ".env").symlink_to("/dev/zero")
    assert mistakes_of(tmp_path / "config.yaml") == [f"{tmp_path}/.env: cannot be read: larger than 1 MiB"]


def test_a_folder_or_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.mkdir()
    cure = "write a file there; Docker makes a folder where the file to mount is not there"
    assert mistakes_of(path) == [f"F: is a folder; {cure}"]
    path.rmdir()
    path.symlink_to(path)
    assert mistakes_of(path) == ["F: cannot be read: Too many levels of symbolic links"]


def test_aliases_and_merge_keys_still_work(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "endpoints:\n"
        "  - &first {name: a, url: http://a/, signing: none, retry: &r {jitter: 0.5}}\n"
        "  - {name: b, url: http://b/, signing: none, retry: *r}\n"
        "  - {<<: *first, name: c}\n"
    )
    endpoints = load(path, environ={}).endpoints
    assert [(each.name, each.url.host, each.retry.jitter) for each in endpoints] == [
        ("a", "a", 0.5),
        ("b", "b", 0.5),
        ("c", "a", 0.5),
    ]


@pytest.mark.parametrize("bomb", ["aliases", "merges", "text", "variables", "keys"])
def test_a_small_file_that_means_much_is_refused_at_once(tmp_path: Path, bomb: str) -> None:
    path, levels = tmp_path / "config.yaml", range(1, 40)
    texts = {
        "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in levels),
        "merges": "a0: &a0 {k: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in levels),
        "text": f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 9)}]\n",
        "variables": f"capture: {{rooms: ['{'${X}' * 100_000}']}}",
        "keys": "".join(f"k{i}: 1\n" for i in range(40_000)),
    }
    path.write_text(texts[bomb])
    began = time.process_time()
    lines = mistakes_of(path, X="x" * 100_000)
    assert all(line.startswith("F:") for line in lines)
    assert time.process_time() - began < 30  # without limits, it does not end


def test_a_number_that_yaml_reads_otherwise_is_refused_in_text_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('capture: {rooms: ["010", \'1:30\', "no"], stt: {provider: x, options: {language: "no"}}}')
    assert load(path, environ={}).capture.rooms == ("010", "1:30", "no")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "SPEECH_RELAY__ENDPOINTS",
            '[{"name": "a",}]',
            "not JSON: illegal trailing comma before end of object at character 14"
            if sys.version_info >= (3, 13)
            else "not JSON: expecting property name enclosed in double quotes at character 15",
        ),
        ("SPEECH_RELAY__ENDPOINTS", "[[" * 40_000, "not JSON: nested more than 32 levels deep"),
        (
            "SPEECH_RELAY__ENDPOINTS",
            '[{"name": "a", "name": "b"}]',
            "not JSON: it has a key twice in one place; keep one",
        ),
        (
            "SPEECH_RELAY__CAPTURE__STT__OPTIONS",
            '{"a": ' + "9" * 5000 + "}",
            "not JSON: it has a number with too many digits",
        ),
        ("SPEECH_RELAY__CAPTURE" + "__A" * 40, "x", "names no key; write SPEECH_RELAY__SECTION__KEY"),
        ("SPEECH_RELAY__OUTBOX__", "x", "names no key; write SPEECH_RELAY__SECTION__KEY"),
        ("SPEECH_RELAY__", "x", "names no section; take it out"),
        ("SPEECH_RELAY__API_LISTEN", "x", "names no section; did you mean SPEECH_RELAY__API__LISTEN?"),
        ("SPEECH_RELAY_OUTBOX_URL", "x", "is not read; did you mean SPEECH_RELAY__OUTBOX__URL?"),
        ("SPEECH_RELAY_CAPTURE__MAX_LOAD", "1", "is not read; did you mean SPEECH_RELAY__CAPTURE__MAX_LOAD?"),
        ("SPEECH_RELAY_ENDPOINTS", "[]", "is not read; did you mean SPEECH_RELAY__ENDPOINTS?"),
    ],
)
def test_a_variable_that_is_no_json_or_no_key_is_one_line(tmp_path: Path, name: str, value: str, line: str) -> None:
    (tmp_path / "config.yaml").write_text("")
    assert mistakes_of(tmp_path / "config.yaml", **{name: value}) == [f"environment: {name}: {line}"]


@pytest.mark.parametrize(
    "name", ["SPEECH_RELAY_CONFIG", "SPEECH_RELAY_API_TOKEN", "SPEECH_RELAY_SERVICE_HOST", "SPEECH_RELAY_API_PORT"]
)
def test_a_variable_of_other_software_is_no_mistake(tmp_path: Path, name: str) -> None:
    """Kubernetes names some after its services."""
    (tmp_path / "config.yaml").write_text("")
    assert load(tmp_path / "config.yaml", environ={name: "x"}) == load(tmp_path / "config.yaml", environ={})


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("shutdown: {grace: 1s}")
    assert mistakes_of(path, SPEECH_RELAY__SHUTDOWN__GRACE="soon", SPEECH_RELAY__OUTBX__URL="x", LIVEKIT_URL="x") == [
        "environment: LIVEKIT_URL: not the address of a LiveKit server; write it like wss://livekit.example.com",
        "environment: SPEECH_RELAY__OUTBX__URL: names no section; did you mean SPEECH_RELAY__OUTBOX__URL?",
        f"environment: SPEECH_RELAY__SHUTDOWN__GRACE: {DURATION}",
    ]


def test_a_mistake_inside_a_variable_names_its_place_there(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    endpoints = (
        '[{"name": "a", "url": "http://a", "signing": "none"},'
        ' {"name": "b", "url": "b", "signing": "none", "retry": {"jitter": 2}}, {"name": "c", "url": "http://c"}]'
    )
    capture = '{"stt": {"provider": "none", "option": {}}}'
    assert mistakes_of(path, SPEECH_RELAY__ENDPOINTS=endpoints, SPEECH_RELAY__CAPTURE=capture) == [
        "environment: SPEECH_RELAY__CAPTURE.stt.option: unknown key; did you mean options?",
        "environment: SPEECH_RELAY__ENDPOINTS[b].retry.jitter: should be less than or equal to 1",
        "environment: SPEECH_RELAY__ENDPOINTS[b].url: not an http:// or https:// URL; write it like "
        "https://example.com/hooks",
        "environment: SPEECH_RELAY__ENDPOINTS[c]: has no secret; `speech-relay init` makes one in .env as "
        "C_WEBHOOK_SECRET, or write signing: none",
    ]


def test_a_mistake_in_dotenv_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("endpoints: [{name: crm, url: https://example.com}]")
    dotenv = tmp_path / ".env"
    dotenv.write_text("# keys\nCRM_WEBHOOK_SECRET=whsec_short\n")
    assert mistakes_of(path) == [f"{dotenv}:2: CRM_WEBHOOK_SECRET: {NOT_A_SECRET}"]


def test_a_line_of_dotenv_that_is_none(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("A=1\nB\n")
    (tmp_path / "config.yaml").write_text("")
    assert mistakes_of(tmp_path / "config.yaml") == [
        f"{dotenv}:2: not NAME=value; correct the line or begin it with #",
    ]


def test_a_variable_that_dotenv_sets_and_then_empties(tmp_path: Path) -> None:
    """Values above the empty lines that ``init`` writes."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("LIVEKIT_URL=ws://a\nLIVEKIT_API_KEY=\nLIVEKIT_URL= \nLIVEKIT_API_KEY=key\n")
    (tmp_path / "config.yaml").write_text("")
    assert mistakes_of(tmp_path / "config.yaml") == [
        f"{dotenv}:3: LIVEKIT_URL: is empty here, which undoes its value in line 1; take one of the lines out",
    ]


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "livekit: {api_secret: [hush], url: 'hush://x'}\n"
        "capture: {stt: {provider: 5, options: hush}}\n"
        "endpoints:\n"
        "  - {name: a, url: https://hush:hush@example.com, secret: hush, headers: {X-Key: [hush]}}\n"
        '  - {name: b, url: "hush hush", secret: [whsec_hush, 5], headers: {X-Key: "hush\\n"}, events: 5}\n'
    )
    with pytest.raises(Mistakes) as raised:
        load(path, environ={"B_WEBHOOK_SECRET": "hush", "SPEECH_RELAY__LIVEKIT__API_KEY": "[1, hush"})
    assert len(raised.value.problems) >= 8
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize(
    "name",
    [
        *("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "CRM_WEBHOOK_SECRET", "DEEPGRAM_API_KEY"),
        *("SPEECH_RELAY__OUTBOX__URL", "SPEECH_RELAY__CAPTURE__ROOMS"),
    ],
)
def test_quotes_that_docker_kept_are_named(tmp_path: Path, name: str, quote: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("endpoints: [{name: crm, url: https://example.com}]")
    usable = {"CRM_WEBHOOK_SECRET": SECRET}
    value = SECRET if name == "CRM_WEBHOOK_SECRET" else "ws://a"
    assert mistakes_of(path, **{**usable, name: f"{quote}{value}{quote}"}) == [f"environment: {name}: {IN_QUOTES}"]


@pytest.mark.parametrize("written", ["$OPS_TOKEN", "Bearer $OPS_TOKEN", "a-$OPS_TOKEN/b"])
def test_a_variable_without_braces_is_named(tmp_path: Path, written: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"capture: {{stt: {{provider: x, options: {{key: '{written}'}}}}}}")
    assert mistakes_of(path, OPS_TOKEN="hush") == [
        "F:1: capture.stt.options.key: $OPS_TOKEN is not replaced without braces; write ${OPS_TOKEN}"
    ]


def test_a_room_may_have_quotes_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    rooms = ("The \u201cBlue\u201d", "\u201cBlue\u201d room", "5'", "'")
    path.write_text(f"capture: {{rooms: {json.dumps(rooms)}}}")
    assert load(path, environ={}).capture.rooms == rooms

"""Configurations with typos, editor damage and attacks: seeded mutations of files that load."""

import random
from dataclasses import dataclass

from relay.cli.commands.init import render
from tests.support.cli import SECRET

EVERYTHING = f"""\
livekit: {{url: wss://livekit.example.com, api_key: key, api_secret: "${{LIVEKIT_SECRET:-none}}", agent_name: relay}}
capture:
  rooms: ["support-*", '[ab]?', &any "*"]
  participants: {{kinds: [standard, sip], sources: [microphone]}}
  vad: {{provider: silero, options: {{activation_threshold: 0.5}}}}
  stt:
    provider: deepgram
    options: {{model: nova-3, language: "no", keyterm: [a, b], smart_format: true}}
  away_after: 1m30s
  max_load: 0.7
  max_tracks_per_participant: 2
  max_streams_per_room: 100
speech: {{merge_gap: 250ms, transcript_timeout: 5s, overlap_min: .3}}
outbox:
  url: sqlite:///var/relay.db
  retention: 7d
dispatch: {{concurrency: 256}}
endpoints:
  - &crm
    name: crm
    url: https://crm.example.com/hooks?a=b#c
    secret: [{SECRET}, "${{CRM_NEW:-{SECRET}}}"]
    events: [transcript.*, utterance.completed]
    rooms: [*any]
    participants: ["user-*"]
    include: {{text: true, words: yes, attributes: [tenant]}}
    headers: {{X-Tenant: acme, Authorization: "Bearer ${{TOKEN:-t}}"}}
    timeout: 15s
    connect_timeout: 5
    concurrency: 16
    interim_ttl: 10s
    retry: &retry {{schedule: [1s, 5s, 1h30m], jitter: 0.2, park_after: 5m}}
    breaker: {{requests: 10, failing: 0.7, window: 5m, rest: 30s}}
    disable_after: 5d
    egress: {{public_only: true, allow: [10.1.0.0/16, "fd12::/32"]}}
  - {{<<: *crm, name: bi, order: strict, retry: *retry, breaker: null}}
  - name: lk
    url: http://[::1]:8080
    signing: livekit
    livekit_key: {{api_key: k, api_secret: s}}
    format: cloudevents
  - {{name: open, url: "http://127.0.0.1:8791/", signing: none, tls: {{}}}}
admin: {{listen: "127.0.0.1:8790"}}
shutdown: {{grace: 20s}}
"""

DOTENV = f"""\
# keys
LIVEKIT_URL=wss://livekit.example.com
export LIVEKIT_API_KEY='key'
LIVEKIT_API_SECRET="a secret\\n"   # why
RECEIVER_WEBHOOK_SECRET={SECRET}
DEEPGRAM_API_KEY=k
SPEECH_RELAY__OUTBOX__RETENTION=1h30m
SPEECH_RELAY__CAPTURE__ROOMS=a-*, b
SPEECH_RELAY__CAPTURE__STT__OPTIONS={{"model": "nova-3"}}
TOKEN=${{OTHER}}
EMPTY=
"""

_SEEDS = (EVERYTHING, render(), render(stt="moonshine", name="crm", url="https://example.com/a?b=c"))

_TOKENS = (
    *("&a ", "*a", "*any", "<<: *crm", "<<: [*crm, *crm]", "!!python/object/apply:os.system ", "!!set {a}", "!!omap "),
    *(
        "!!binary x",
        "!!int a",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!null x",
        "!!str ",
        "!!map ",
        "!!seq ",
        "!x",
    ),
    *("2026-02-30", "2026-02-28T25:61:00Z", "010", "0o10", "0x10", "1:30", "1:30.5", "1_000", "1e999", "-1", "+1", "0"),
    *(".inf", "-.inf", ".nan", "9" * 5000, "0x" + "f" * 5000, "1." + "0" * 500, "~", "null", "yes", "no", "on", "="),
    *(
        "\t",
        "\0",
        "\ufeff",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\u202e",
        "\r",
        "\r\n",
        "\n\n",
        "  ",
        "    ",
        "😀",
        "é",
        "\x7f",
    ),
    *(
        '"\\ud83d"',
        '"\\UFFFFFFFF"',
        '"\\x00"',
        '"\\N"',
        '"\\q"',
        "'",
        '"',
        "`",
        "@",
        "%",
        "%YAML 9.9\n---\n",
        "---\n",
        "...\n",
    ),
    *("{", "}", "[", "]", ",", ":", ": ", "- ", "? ", "| ", "> ", "|9", "#", " #", "[" * 100, "{a: " * 100, "- " * 100),
    *("${", "$${", "${A}", "${PATH}", "${A:-${B}}", "${A:-}", "${:-x}", "$", "${BIG}" * 200, "export ", "=", "'='=1\n"),
    *(
        "a" * 5000,
        "http://",
        "https://user:pass@x",
        "http://[::1",
        "http://a:99999",
        "http://a b",
        "http://xn--a",
        "ws://é",
    ),
    *(
        "http://\u202e",
        "http://a..b",
        "http://-a-",
        "http://a/%zz",
        "http://1.1",
        "http://0x7f.1",
        "http://a:0",
        "[z-a]",
        "[!",
        "[[:",
    ),
    *(
        "sqlite:///" + "a" * 300,
        "sqlite:///a?b",
        "sqlite:////dev/null/x",
        "sqlite:///a/../..",
        "sqlite:///.",
        "whsec_",
        SECRET,
        f"{SECRET} {SECRET}",
        '"x"',
        "1d",
        "1w",
        "5m30s",
        "30s5m",
        "1h1h",
        "٣s",
        "null\n",
        "true",
        "[]",
        "{}",
    ),
    *("SPEECH_RELAY__", "SPEECH_RELAY__OUTBOX=5\n", "SPEECH_RELAY__ENDPOINTS__0__NAME=a\n", "SPEECH_RELAY__A__B=1\n"),
    *("SPEECH_RELAY__ENDPOINTS=[{\n", "SPEECH_RELAY__OUTBOX__URL__X=1\n", "speech_relay__admin__listen=x\n"),
)
_KEYS = (
    "endpoints",
    "url",
    "name",
    "rooms",
    "secret",
    "options",
    "retry",
    "breaker",
    "tls",
    "ca",
    "headers",
    "capture",
)


@dataclass(frozen=True)
class Mutant:
    seed: int
    config: bytes
    dotenv: bytes


def mutant(seed: int) -> Mutant:
    """A config.yaml and the ``.env`` beside it, one or both mutated. The same for the same seed."""
    dice = random.Random(seed)
    config, dotenv = dice.choice(_SEEDS), DOTENV
    which = dice.choice(("config", "config", "dotenv", "both"))
    if which != "dotenv":
        config = _mutated(config, dice)
    if which != "config":
        dotenv = _mutated(dotenv, dice)
    return Mutant(seed, _encoded(config, dice), _encoded(dotenv, dice))


def _mutated(text: str, dice: random.Random) -> str:
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        text = dice.choice(_MUTATIONS)(text, dice)
    return text


def _insert(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice(_TOKENS) + text[at:]


def _value(text: str, dice: random.Random) -> str:
    """Another value for an existing key."""
    lines = text.split("\n")
    index = dice.randrange(len(lines))
    for sign in (": ", "=", "- "):
        head, found, _ = lines[index].partition(sign)
        if found:
            lines[index] = head + found + dice.choice(_TOKENS)
            break
    return "\n".join(lines)


def _cut(text: str, dice: random.Random) -> str:
    begin = dice.randrange(len(text) + 1)
    return text[:begin] + text[begin + dice.choice((1, 1, 2, 10, 100, len(text))) :]


def _lines(text: str, dice: random.Random) -> str:
    """A line that is duplicated, removed, moved, or indented differently."""
    lines = text.split("\n")
    index, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    match dice.randrange(4):
        case 0:
            lines.insert(other, lines[index])
        case 1:
            del lines[index]
        case 2:
            lines[index], lines[other] = lines[other], lines[index]
        case _:
            lines[index] = dice.choice(("", " ", "  ", "\t", "      ")) + lines[index].strip()
    return "\n".join(lines)


def _character(text: str, dice: random.Random) -> str:
    if not text:
        return text
    at = dice.randrange(len(text))
    return text[:at] + chr(dice.choice((dice.randrange(128), dice.randrange(0x250), 0xE000, 0x10FFFF))) + text[at + 1 :]


def _renamed(text: str, dice: random.Random) -> str:
    return text.replace(dice.choice(_KEYS), dice.choice((*_KEYS, *_TOKENS)), 1)


def _spliced(text: str, dice: random.Random) -> str:
    other = dice.choice((*_SEEDS, DOTENV))
    return text[: dice.randrange(len(text) + 1)] + other[dice.randrange(len(other)) :]


def _repeated(text: str, dice: random.Random) -> str:
    begin = dice.randrange(len(text) + 1)
    return text[:begin] + text[begin : begin + dice.randrange(80)] * dice.choice((2, 50)) + text[begin:]


_MUTATIONS = (_insert, _insert, _value, _value, _value, _cut, _lines, _lines, _character, _renamed, _spliced, _repeated)


def _encoded(text: str, dice: random.Random) -> bytes:
    content = text.encode()
    match dice.randrange(60):
        case 0:
            return text.encode(dice.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")))
        case 1:
            at = dice.randrange(len(content) + 1)
            return content[:at] + bytes([dice.randrange(128, 256)]) + content[at:]
        case 2:
            return content.replace(b"\n", dice.choice((b"\r\n", b"\r")))
        case _:
            return content

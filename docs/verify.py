#!/usr/bin/env python3
"""An independent verifier of Sekisho's transparency logs. It needs Python 3.8 or newer and nothing else; no network.

    verify.py proof POLICY ENTRY.tlog-proof STATEMENT   the statement is in the log, as of a witnessed checkpoint
    verify.py consistency POLICY OLD-CHECKPOINT PROOF   the log of the proof's checkpoint begins with the older one
    verify.py checkpoint POLICY CHECKPOINT              its log signed it, and the policy's quorum cosigned it
    verify.py bundle POLICY FOLDER                      the logs of an unpacked release bundle: files, checkpoint, proofs

It was written from the specifications alone (docs/provenance.md names them) and shares no code with Sekisho. It prints
what it checked and ends with 0; or prints which link broke and ends with 1; or ends with 2 when it is used wrongly.
"""
import base64
import datetime
import hashlib
import json
import os
import re
import sys

MAX_FILE = 272 * 1024
MAX_SIZE = 2**63 - 1
KINDS = ("roster status committee governance orders catalogue application review decision permit acceptance query "
         "reservation receipt refusal output_review release policy replay alert checkpoint "
         "schema publication write_off").split()


class Refused(Exception):
    """Something that was to be proved is not."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


# Ed25519, RFC 8032: without cofactor, and refusing points of small order, as `verify_strict` of ed25519-dalek does.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def point_add(a, b):
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    c = 2 * a[3] * b[3] * D % P
    d = 2 * a[2] * b[2] % P
    return ((f - e) * (d - c) % P, (d + c) * (f + e) % P, (d - c) * (d + c) % P, (f - e) * (f + e) % P)


def point_times(k, point):
    total = (0, 1, 1, 0)
    while k:
        if k & 1:
            total = point_add(total, point)
        point = point_add(point, point)
        k >>= 1
    return total


def same_point(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point(encoded):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    whole = (x, y, 1, x * y % P)
    return None if same_point(point_times(8, whole), (0, 1, 1, 0)) else whole


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signature_verifies(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    return same_point(point_times(s, BASE), point_add(r, point_times(h, a)))


# The pieces of the texts. Each has one form.

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("not base64: %r" % text[:80])
    require(base64.b64encode(data).decode() == text, "base64 that is not in its one form")
    return data


def number(text):
    require(re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII) and int(text) <= MAX_SIZE, "not a size: %r" % text[:80])
    return int(text)


def hash_of(line):
    data = unbase64(line)
    require(len(data) == 32, "a hash has 32 bytes")
    return data


def as_text(data):
    require(len(data) <= MAX_FILE, "a file of more than 272 KiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not UTF-8")


# c2sp.org/signed-note

def check_name(name):
    require(0 < len(name.encode()) <= 255 and not re.search(r"[\s+\x00-\x1f\x7f-\x9f]", name), "not a key's name")
    return name


def key_id(name, kind, key):
    return sha256(name.encode(), b"\n", bytes([kind]), key)[:4]


def parse_key(text, wanted):
    parts = text.split("+", 2)
    require(len(parts) == 3, "a key is NAME+ID+BASE64")
    name, data = check_name(parts[0]), unbase64(parts[2])
    require(len(data) == 33 and data[0] == wanted and point(data[1:]), "not a key of type %d" % wanted)
    require(parts[1] == key_id(name, wanted, data[1:]).hex(), "the id is not that of this name and key")
    return name, wanted, data[1:]


class Note:
    def __init__(self, text):
        at = text.rfind("\n\n")
        require(at >= 0, "a signed note has an empty line before its signatures")
        self.text, lines = text[:at + 1], text[at + 2:]
        require(lines.endswith("\n"), "a signed note ends with signature lines")
        require(not re.search("[\x00-\x09\x0b-\x1f]", text), "a signed note has no control characters")
        self.lines = []
        for line in lines[:-1].split("\n"):
            match = re.fullmatch("\u2014 ([^ ]+) ([A-Za-z0-9+/=]+)", line)
            require(match, "not a signature line: %r" % line[:80])
            data = unbase64(match[2])
            require(len(data) > 4, "a signature line without a signature")
            self.lines.append((check_name(match[1]), data[:4], data[4:]))
        require(len(self.lines) <= 64, "more than 64 signatures")

    def signature(self, key):
        """What this key is said to have signed with; unknown keys are passed over."""
        name, kind, public = key
        found = [data for who, ident, data in self.lines if who == name and ident == key_id(name, kind, public)]
        require(len(found) <= 1, "%s signed more than once" % name)
        return found[0] if found else None


# c2sp.org/tlog-checkpoint

class Checkpoint:
    def __init__(self, text):
        self.note = Note(text)
        lines = self.note.text[:-1].split("\n")
        require(len(lines) >= 3 and len(lines) <= 19, "a checkpoint has three lines and at most 16 more")
        self.origin, self.size, self.root = check_name(lines[0]), number(lines[1]), hash_of(lines[2])
        require(all(0 < len(line.encode()) <= 1024 for line in lines[3:]), "an empty or long extension line")
        require(self.size > 0 or self.root == sha256(), "the root is not that of an empty tree")


# c2sp.org/tlog-cosignature

def cosigned(checkpoint, key):
    """When the witness cosigned the checkpoint, if it did."""
    data = checkpoint.note.signature(key)
    if data is None:
        return None
    require(len(data) == 72, "the cosignature of %s has another length" % key[0])
    time = int.from_bytes(data[:8], "big")
    message = "cosignature/v1\ntime %d\n%s" % (time, checkpoint.note.text)
    verifies = time <= 2**63 - 1 and signature_verifies(key[2], message.encode(), data[8:])
    require(verifies, "the cosignature of %s does not verify" % key[0])
    return time


# c2sp.org/tlog-policy

class Policy:
    def __init__(self, text):
        require(text.endswith("\n"), "the policy does not end with a newline: it may have been cut")
        require(not re.search("[\x00-\x08\x0b-\x1f\x7f]", text), "control characters in the policy")
        self.logs, self.rules, self.quorum, used = [], {}, None, set()
        for at, line in enumerate(text[:-1].split("\n"), 1):
            words = [word for word in re.split("[ \t]+", line) if word]
            if not words or words[0].startswith("#"):
                continue
            where = "line %d of the policy" % at
            if words[0] == "log" and len(words) in (2, 3):
                key = parse_key(words[1], 1)
                require(all(key[2] != log[2] for log in self.logs), where + ": a log's key twice")
                self.logs.append(key)
            elif words[0] == "witness" and len(words) in (3, 4):
                key = parse_key(words[2], 4)
                require(all(key[2] != rule[2] for rule in self.rules.values() if rule[1] == 4), where + ": a key twice")
                self.define(words[1], key, where)
            elif words[0] == "group" and len(words) > 3:
                members = words[3:]
                needed = {"any": 1, "all": len(members)}.get(words[2]) or number(words[2])
                require(1 <= needed <= len(members), where + ": a group needs 1 to all of its members")
                for member in members:
                    require(member in self.rules and member not in used, where + ": %r is unknown or used" % member)
                    used.add(member)
                self.define(words[1], (members, "group", needed), where)
            elif words[0] == "quorum" and len(words) == 2:
                require(self.quorum is None, where + ": a second quorum")
                require(words[1] == "none" or words[1] in self.rules, where + ": no such witness or group")
                self.quorum = words[1]
            else:
                raise Refused(where + ": not understood")
        require(self.quorum is not None, "the policy has no quorum line")

    def define(self, name, rule, where):
        require(name != "none" and name not in self.rules, where + ": the name is taken")
        self.rules[name] = rule

    def check(self, checkpoint):
        """The log signed, and the quorum cosigned."""
        logs = [log for log in self.logs if log[0] == checkpoint.origin]
        require(logs, "the policy does not know the log %s" % checkpoint.origin)
        signed = None
        for log in logs:
            data = checkpoint.note.signature(log)
            if data is not None:
                verifies = signature_verifies(log[2], checkpoint.note.text.encode(), data)
                require(verifies, "the signature of %s does not verify" % log[0])
                signed = signed or log
        require(signed, "%s did not sign with a key that the policy knows" % checkpoint.origin)
        say("the log %s signed %d entries with root %s" %
            (checkpoint.origin, checkpoint.size, base64.b64encode(checkpoint.root).decode()))
        met = {"none": True}
        for name, rule in self.rules.items():
            if rule[1] == "group":
                met[name] = sum(met[member] for member in rule[0]) >= rule[2]
                continue
            time = None if rule[2] == signed[2] else cosigned(checkpoint, rule)
            met[name] = time is not None
            if time is not None:
                say("%s cosigned it at %s" % (name, instant(time)))
        require(met[self.quorum], "the quorum %s is not met" % self.quorum)
        say("the quorum %s of the policy is met" % self.quorum)


def instant(time):
    try:
        return datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return "%d seconds after 1970" % time


# RFC 6962 for the hashes; the algorithms are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2

def node(left, right):
    return sha256(b"\x01", left, right)


def check_inclusion(index, leaf, checkpoint, proof):
    require(index < checkpoint.size, "there is no entry %d in a log of %d entries" % (index, checkpoint.size))
    fn, sn, r = index, checkpoint.size - 1, leaf
    for p in proof:
        require(sn > 0, "the proof has too many hashes")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the proof has too few hashes")
    require(r == checkpoint.root, "the proof does not lead to the signed root: this is not entry %d of the log" % index)


def check_consistency(old, new, proof):
    require(old.origin == new.origin, "two different logs")
    require(old.size <= new.size, "the log has %d entries and had %d: it was cut or rolled back" % (new.size, old.size))
    if old.size in (0, new.size):
        require(not proof, "the proof has too many hashes")
        require(old.size == 0 or old.root == new.root, "two roots for one size: the log forked")
        return
    require(proof, "the proof has too few hashes")
    path = [old.root] + proof if old.size & (old.size - 1) == 0 else list(proof)
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        require(sn > 0, "the proof has too many hashes")
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the proof has too few hashes")
    require(fr == old.root and sr == new.root, "the log does not continue the older one: history was changed")


# Sekisho's leaves: docs/provenance.md, "Entries"

def framed(*parts):
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def leaf_of(salt, kind, statement):
    commitment = sha256(framed(b"sekisho log leaf v1", salt, kind.encode(), sha256(statement)))
    return sha256(b"\x00", commitment)


# c2sp.org/tlog-proof, and the body of add-checkpoint of c2sp.org/tlog-witness

def halves(data):
    text = as_text(data)
    at = text.find("\n\n")
    require(at >= 0, "no empty line before the checkpoint")
    return text[:at].split("\n"), Checkpoint(text[at + 2:])


def run_proof(policy, proof, statement):
    lines, checkpoint = halves(proof)
    require(lines[0] == "c2sp.org/tlog-proof@v1", "the first line is not that of a proof")
    require(len(lines) > 2 and lines[1].startswith("extra "), "the proof does not carry what opens the entry")
    opening = unbase64(lines[1][len("extra "):])
    require(lines[2].startswith("index "), "no line `index NUMBER`")
    index, hashes = number(lines[2][len("index "):]), [hash_of(line) for line in lines[3:]]
    kind = opening[32:].decode("ascii", "replace")
    require(kind in KINDS, "what opens the entry is not a salt and a kind")
    policy.check(checkpoint)
    check_inclusion(index, leaf_of(opening[:32], kind, statement), checkpoint, hashes)
    say("the statement, a %s with SHA-256 %s, is entry %d of that log" % (kind, sha256(statement).hex(), index))


def run_consistency(policy, old, proof):
    lines, new = halves(proof)
    require(lines[0].startswith("old "), "the first line is not `old NUMBER`")
    size, hashes, old = number(lines[0][len("old "):]), [hash_of(line) for line in lines[1:]], Checkpoint(as_text(old))
    require(size == old.size, "the proof begins at %d entries, the older checkpoint has %d" % (size, old.size))
    policy.check(old)
    policy.check(new)
    check_consistency(old, new, hashes)
    say("the log of %d entries begins with the %d entries of the older checkpoint" % (new.size, old.size))


def run_checkpoint(policy, checkpoint):
    policy.check(Checkpoint(as_text(checkpoint)))


# A release bundle: docs/provenance.md, "Release bundles". Signatures of documents, plan and tables are not looked at here.

FOLDERS = [("trust/rosters/", "roster"), ("trust/governance/", "governance"), ("trust/committees/", "committee"),
           ("reviews/", "output_review"), ("receipts/", "receipt"), ("acceptances/", "acceptance")]
SINGLE = {"release.dsse.json": "release", "query.dsse.json": "query", "permit.dsse.json": "permit",
          "schema.dsse.json": "schema", "trust/status.dsse.json": "status"}


def kind_of(path):
    if path.startswith("hospitals/") and path.endswith(".checkpoint"):
        return "checkpoint"
    folder = [kind for folder, kind in FOLDERS if path.startswith(folder) and path.endswith(".dsse.json")]
    return folder[0] if folder else SINGLE.get(path)


def included(proof, statement, kind, checkpoint):
    lines, of = halves(proof)
    require(of.note.text == checkpoint.note.text, "its proof is of another checkpoint")
    require(lines[0] == "c2sp.org/tlog-proof@v1" and len(lines) > 2 and lines[1].startswith("extra ")
            and lines[2].startswith("index "), "not a proof with what opens the entry")
    opening = unbase64(lines[1][len("extra "):])
    require(opening[32:] == kind.encode(), "its proof is of a %r" % opening[32:80])
    index, hashes = number(lines[2][len("index "):]), [hash_of(line) for line in lines[3:]]
    check_inclusion(index, leaf_of(opening[:32], kind, statement), checkpoint, hashes)


def run_bundle(policy, folder):
    require(isinstance(folder, str), "not a folder: unpack the archive first")
    files = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as opened:
                files[os.path.relpath(path, folder).replace(os.sep, "/")] = opened.read()

    def need(path):
        require(path in files, "%s is missing" % path)
        return files[path]

    try:
        graph = json.loads(need("ro-crate-metadata.json").decode())["@graph"]
        listed = {entity["@id"]: entity["sha256"] for entity in graph if entity.get("@type") == "File"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused("ro-crate-metadata.json is not what it should be")
    require(set(listed) | {"ro-crate-metadata.json"} == set(files), "other files than those that are listed")
    for path, digest in sorted(listed.items()):
        require(sha256(files[path]).hex() == digest, "%s is not the file that is listed" % path)
    say("%d files are those that are listed" % len(listed))
    checkpoint = Checkpoint(as_text(need("log/checkpoint")))
    policy.check(checkpoint)
    statements = [path for path in sorted(files) if kind_of(path)]
    require(set(SINGLE) <= set(statements), "a document that every bundle has is missing")
    for path in statements:
        try:
            included(need("proofs/%s.tlog-proof" % path), files[path], kind_of(path), checkpoint)
        except Refused as e:
            raise Refused("%s: %s" % (path, e))
    say("%d signed documents are in that log" % len(statements))
    hospitals = [path[len("receipts/"):-len(".dsse.json")] for path in statements if path.startswith("receipts/")]
    require(hospitals, "no hospital's receipt")
    for name in hospitals:
        try:
            own = Checkpoint(as_text(need("hospitals/%s.checkpoint" % name)))
            require(own.origin.partition("/")[2] == name, "a checkpoint of %s" % own.origin)
            included(need("hospitals/%s.receipt.tlog-proof" % name), need("receipts/%s.dsse.json" % name), "receipt", own)
        except Refused as e:
            raise Refused("the log of %s: %s" % (name, e))
        say("the receipt of %s is in its own log of %d entries" % (name, own.size))


def say(what):
    print("checked: " + what)


COMMANDS = {"proof": (run_proof, 3), "consistency": (run_consistency, 3), "checkpoint": (run_checkpoint, 2),
            "bundle": (run_bundle, 2)}


def main(arguments):
    run, count = COMMANDS.get(arguments[0] if arguments else "", (None, 0))
    if run is None or len(arguments) != count + 1:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        files = [path if os.path.isdir(path) else open(path, "rb").read() for path in arguments[1:]]
    except OSError as e:
        print("cannot read: %s" % e, file=sys.stderr)
        return 2
    try:
        run(Policy(as_text(files[0])), *files[1:])
    except Refused as e:
        print("REFUSED: %s" % e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Lists of tokens on the KV-cache controller, as a serving engine keeps them."""

import hashlib

from golden.paging import Command, Opcode

__all__ = ["Host", "chain"]

UNKNOWN = -1        # a token that was never told


def chain(tokens, size, salt=""):
    """The hashes of all full blocks of `size` tokens, each over all tokens up to its end.

    Parameters
    ----------
    tokens : list of int
    size : int
    salt : str
        Prompts of different salts share nothing.
    """
    parent, hashes = hashlib.blake2b(salt.encode(), digest_size=8).digest(), []
    for end in range(size, len(tokens) + 1, size):
        text = ",".join(map(str, tokens[end - size:end])).encode()
        parent = hashlib.blake2b(parent + text, digest_size=8).digest()
        hashes.append(int.from_bytes(parent, "little"))
    return hashes


class Host:
    """What a serving engine does with prompts and new tokens, in commands.

    Parameters
    ----------
    config : golden.config.KvCache
    run : callable
        Takes a `Command`; returns its `Completion` and, of a `LOOKUP`, the blocks found.
    caching : bool
        Whether it looks prompts up and commits full blocks.

    Attributes
    ----------
    tokens : dict of int to list of int
        Those of each open sequence.
    """

    def __init__(self, config, run, caching=True):
        self.config, self.run, self.caching = config, run, caching
        self.tokens, self.salts, self.tenants = {}, {}, {}

    def prefill(self, sid, tokens, tenant=0, salt=""):
        """Open a sequence, unless it is, with a prompt: what is cached is mapped, the rest gets new blocks.

        The last token is never taken from the cache, as its result is what decoding starts from. When
        blocks run out, the sequence is closed again.

        Returns
        -------
        completion : Completion
            Of the first command refused, or of the `ATTACH`.
        hits : list of int
        """
        opened = sid not in self.tokens
        if opened:
            completion, _ = self.run(Command(Opcode.ALLOC_SEQ, {"sid": sid, "tenant": tenant}))
            if completion.status:
                return completion, []
        size, hits = self.config.block_tokens, []
        if self.caching:
            hashes = chain(tokens, size, salt)[:(len(tokens) - 1) // size]
            _, hits = self.run(Command(Opcode.LOOKUP, {"tenant": tenant, "count": len(hashes)}, tuple(hashes)))
        completion, _ = self.run(Command(Opcode.ATTACH, {
            "sid": sid, "tenant": tenant, "count": len(hits), "tokens": len(tokens) - len(hits) * size}, tuple(hits)))
        if completion.status:
            if opened:
                self.run(Command(Opcode.FREE, {"sid": sid, "tenant": tenant}))
            return completion, hits
        self.tokens[sid], self.salts[sid], self.tenants[sid] = list(tokens), salt, tenant
        return self._commit(sid, len(hits)) or completion, hits

    def append(self, sid, tokens):
        """Reserve slots for more tokens of a sequence; return the completion."""
        full = len(self.tokens[sid]) // self.config.block_tokens
        completion, _ = self.run(Command(Opcode.APPEND, {
            "sid": sid, "tenant": self.tenants[sid], "tokens": len(tokens)}))
        if completion.status:
            return completion
        self.tokens[sid] += tokens
        return self._commit(sid, full) or completion

    def hash(self, sid, index):
        """The hash of a full block."""
        return chain(self.tokens[sid], self.config.block_tokens, self.salts[sid])[index]

    def follow(self, command):
        """Keep the lists of tokens in step with a command that went well."""
        sid, given = command.arguments.get("sid"), command.arguments
        match command.opcode:
            case Opcode.ALLOC_SEQ:
                self.tokens[sid], self.salts[sid], self.tenants[sid] = [], "", given.get("tenant", 0)
            case Opcode.FORK:
                for each in self.tokens, self.salts, self.tenants:
                    each[given["target"]] = each[sid]
                self.tokens[given["target"]] = list(self.tokens[sid])
            case Opcode.APPEND | Opcode.ATTACH:
                slots = given.get("tokens", 0) + given.get("count", 0) * self.config.block_tokens
                self.tokens[sid] += [UNKNOWN] * slots
            case Opcode.TRUNCATE:
                del self.tokens[sid][given["length"]:]
            case Opcode.PREEMPT:
                self.tokens[sid] = []
            case Opcode.FREE:
                for each in self.tokens, self.salts, self.tenants:
                    each.pop(sid, None)

    def _commit(self, sid, first):
        """Commit all full blocks from the `first` on; the completion of one that is refused."""
        for index in range(first, len(self.tokens[sid]) // self.config.block_tokens) if self.caching else ():
            completion, _ = self.run(Command(Opcode.COMMIT, {
                "sid": sid, "tenant": self.tenants[sid], "index": index, "hash": self.hash(sid, index)}))
            if completion.status:
                return completion
        return None

"""Names for containers that were given none: an adjective and a surname, as Docker's users know them."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument

_ADJECTIVES = (
    "able agile amber ample azure blithe bold brave breezy bright brisk calm candid careful civic clear clever cosy "
    "crisp daring deft eager earnest easy elegant fair famous fearless fleet fond frank fresh gentle glad golden "
    "graceful grand happy hardy honest humble jolly keen kind lively loyal lucid lucky mellow merry mild modest neat "
    "nimble noble patient peppy placid plucky polite proud prudent quick quiet ready robust rosy serene sharp shy "
    "silent simple sleek smart snug sober solid spry steady still stoic sturdy sunny sure swift tender tidy tranquil "
    "trusty upbeat valiant vivid warm wise witty young zealous zen"
).split()
_SURNAMES = (
    "abel allen archimedes babbage bell bernoulli bohr boole borg brahe cantor carson cauchy cerf church codd conway "
    "curie cray darwin dennis descartes dijkstra dirac easley einstein elion engelbart euclid euler faraday fermat "
    "fermi feynman fibonacci franklin galileo galois gauss germain goedel goldberg gosling hamilton hawking "
    "heisenberg hermite hertz hodgkin hooke hopper hypatia jackson joule kapitsa kepler kernighan knuth kolmogorov "
    "lamarr lamport laplace leibniz liskov lovelace maxwell mccarthy meitner mendel mirzakhani morse napier nash "
    "neumann newton nightingale noether pascal pasteur pauli perlman planck poincare ramanujan ride ritchie sammet "
    "shannon sinoussi stallman thompson torvalds tesla turing volta wiles wilson wing wozniak yonath"
).split()
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")


def random_name() -> str:
    """One of some 10,000; the caller asks again when it is taken."""
    number = int.from_bytes(os.urandom(4), "little")
    return f"{_ADJECTIVES[number % len(_ADJECTIVES)]}_{_SURNAMES[number // 1000 % len(_SURNAMES)]}"


def check_name(name: str) -> None:
    """Raises: InvalidArgument in Docker's words."""
    if len(name) < 2 or len(name) > 200 or name[0] not in _FIRST or not _REST.issuperset(name):
        raise InvalidArgument(f"Invalid container name ({name})", why="only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")

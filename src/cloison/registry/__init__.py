"""The distribution specification's client: manifests and blobs from registries. The disk is not known here.

`client` asks, `auth` gets tokens, `transport` is the only way out over HTTP; `connections` and `budget` are its side
towards the network, `origin` decides who may be spoken to and who may send us where, `platforms` picks from an index.
"""

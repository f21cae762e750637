"""The client of the distribution specification: manifests and blobs from and to registries; no store is known here.

`client` reads, `upload` writes, `listing` and `referrers` ask what there is; `session` is one registry's requests,
`auth` gets its tokens, `helpers` the user's credentials; `transport` is the only way out over HTTP, `connections` and
`budget` are its side towards the network, `tls` and `origin` decide who is trusted, spoken to and may send us where;
`platforms` picks from an index.
"""

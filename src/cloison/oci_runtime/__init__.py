"""The door for container engines: runc's command line. A bundle and a verb in, the OCI state out; no engine."""

"""The use-cases, one module a noun; carries values between the rooms, which do not know each other."""

"""The built-in transforms, as plain functions and stream classes.

Nothing here knows the framework: a function takes a message and gives its reply, text as `str` or
bytes as `bytes`; a stream class takes chunks by `feed`, then `finish`. Names for users and the
declaration of what streams are elsewhere. In text, bytes that are not UTF-8 stand as lone
surrogates, as the `surrogateescape` error handler makes them, and come out unchanged.
"""

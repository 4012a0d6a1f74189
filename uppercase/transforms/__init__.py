"""The built-in transforms: plain functions and stream classes, without Twisted."""

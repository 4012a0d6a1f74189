"""What hypothesis draws for tests of every room."""

from hypothesis import strategies as st

CHARACTER = st.characters(exclude_categories=["Cs"])
"""What `st.text` draws by itself: all but surrogates. But that asks a codec for each character that
there is, which takes seconds in a checkout that is new."""

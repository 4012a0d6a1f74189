from uppercase import transform


@transform
def total(text: str) -> str:
    """Add up the whole numbers of a message."""
    return str(sum(int(word) for word in text.split()))

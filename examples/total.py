from uppercase import Rejected, transform


@transform
def total(text: str) -> str:
    """Add up the whole numbers of a message."""
    try:
        return str(sum(int(word) for word in text.split()))
    except ValueError as error:
        raise Rejected("whole numbers with spaces between them are accepted") from error

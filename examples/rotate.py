from uppercase import transform


@transform(summary="Shift letters by a fixed distance")
def caesar(text: str, *, shift: int = 13) -> str:
    return "".join(rotated(letter, shift) for letter in text)


def rotated(letter: str, shift: int) -> str:
    if not (letter.isascii() and letter.isalpha()):
        return letter
    start = ord("a") if letter.islower() else ord("A")
    return chr((ord(letter) - start + shift) % 26 + start)

"""Numbers in words."""

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def words(number: int) -> str:
    """A number from 0 to 199: "twenty-five"."""
    if number < len(SMALL):
        return SMALL[number]
    if number >= 100:
        return "one hundred" + (f" and {words(number - 100)}" if number > 100 else "")
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f"-{SMALL[ones]}" if ones else "")

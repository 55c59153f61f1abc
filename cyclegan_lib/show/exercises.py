"""How a notebook checks an answer: in one line, never with a traceback."""


def verdict(check):
    """What there is to say of an answer: "not yet: …", "not right: …" or "right! …".

    `check` is a function `check_NAME()` that tries the learner's NAME and returns what it finds. A NAME that still is
    the stub, which raises a bare `NotImplementedError`, and one that fails in another way are reported here.
    """
    name = check.__name__.removeprefix("check_")
    try:
        return check()
    except Exception as error:  # whatever an answer may do
        if isinstance(error, NotImplementedError) and not error.args:
            return f"not yet: write {name} first"
        reason = (str(error).splitlines() or [""])[0]
        if "NoneType" in reason:
            reason += " (does it return something?)"
        return f"not right: trying {name} ended in {type(error).__name__}: {reason}"

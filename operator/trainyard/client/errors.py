"""What can go wrong between a caller and the cluster. Each message says what to do."""


class ClientError(RuntimeError):
    """Anything below."""


class NoAccess(ClientError):
    """There is no usable kubeconfig, or its credentials cannot be had."""


class Away(ClientError):
    """No API server answers."""


class NotFound(ClientError):
    """The object, or the kind of object, does not exist."""


class NotAllowed(ClientError):
    """The API server knows the caller and says no, or does not know him."""


class Rejected(ClientError):
    """The API server takes the request for wrong: a rule is broken, a name is taken, a quota is used up."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """The API server's own word: AlreadyExists, Invalid, Conflict, Expired and so on."""


class TimedOut(ClientError):
    """What was waited for has not come in time."""

"""Amazon's error codes, and the codes of RestMQ's own errors."""

from __future__ import annotations

from restmq import errors
from restmq.auth.guard import WrongSignature
from restmq.errors import WireError
from restmq.handlers.error_status import status_of

_SERVICE = "AWS.SimpleQueueService."
#: The code in XML, and in the header of JSON errors, where it differs from the name of the error.
_QUERY_CODES = {
    "QueueDoesNotExist": _SERVICE + "NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    **{
        name: _SERVICE + name
        for name in (
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidBatchEntryId",
            "MessageNotInflight",
            "TooManyEntriesInBatchRequest",
            "UnsupportedOperation",
        )
    },
}
#: Errors that Amazon's services have in common, with the end of their names in JSON.
_COMMON = "com.amazon.coral.service#"
_COMMON_NAMES = {
    "AccessDenied": "AccessDeniedException",
    "IncompleteSignature": "IncompleteSignatureException",
    "InternalFailure": "InternalFailure",
    "InvalidAction": "UnknownOperationException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "InvalidParameterValue": "InvalidParameterValueException",
    "MalformedInput": "SerializationException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "MissingParameter": "MissingRequiredParameterException",
    "ServiceUnavailable": "ServiceUnavailableException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "ThrottlingException": "ThrottlingException",
}
_STATUS = {
    "AccessDenied": 403,
    "InternalFailure": 500,
    "InvalidClientTokenId": 403,
    "MissingAuthenticationToken": 403,
    "OverLimit": 403,
    "ReceiptHandleIsInvalid": 404,
    "ResourceNotFoundException": 404,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
}


class SqsError(errors.RestMQError):
    """An error with one of Amazon's codes.

    Attributes:
        name: the error's name in the SQS API Reference, such as ``QueueDoesNotExist``.
    """

    def __init__(self, name: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.name = name
        self.status = status or _STATUS.get(name, 400)

    @property
    def code(self) -> str:
        """The code in XML, in batches, and in the header of JSON errors."""
        return _QUERY_CODES.get(self.name, self.name)

    @property
    def json_type(self) -> str:
        """The error's type in JSON."""
        common = _COMMON_NAMES.get(self.name)
        return _COMMON + common if common else "com.amazonaws.sqs#" + self.name

    @property
    def is_senders(self) -> bool:
        """Whether the client is at fault, so that repeating the request does not help."""
        return self.status < 500


#: Names of Amazon's errors by class of ours; the nearest base class in the MRO counts.
_NAMES: dict[type[BaseException], str] = {
    errors.InvalidInput: "InvalidParameterValue",
    errors.TooLong: "InvalidParameterValue",
    errors.HeadersTooLarge: "InvalidParameterValue",
    errors.NotAuthenticated: "InvalidClientTokenId",
    WrongSignature: "SignatureDoesNotMatch",
    errors.NotAllowed: "AccessDenied",
    errors.NotFound: "ResourceNotFoundException",
    errors.LeaseGone: "ReceiptHandleIsInvalid",
    errors.QueueFull: "OverLimit",
    errors.TooManyFailures: "ThrottlingException",
    errors.Overloaded: "ServiceUnavailable",
    errors.StoreUnavailable: "ServiceUnavailable",
    errors.StoreRefused: "ServiceUnavailable",
}


def as_sqs_error(error: BaseException | None) -> SqsError:
    """Amazon's form of an error; None stands for a fault of the server."""
    if isinstance(error, SqsError):
        return error
    if error is None:
        return SqsError("InternalFailure", "the server failed; its log has the reason.")
    if isinstance(error, WireError):
        return SqsError("MalformedInput", str(error), error.status)
    name = next((_NAMES[kind] for kind in type(error).__mro__ if kind in _NAMES), "InvalidParameterValue")
    return SqsError(name, str(error), 0 if name in _STATUS else status_of(error))


def queue_missing() -> SqsError:
    return SqsError("QueueDoesNotExist", "The specified queue does not exist.")


def invalid_value(text: str) -> SqsError:
    return SqsError("InvalidParameterValue", text)


def invalid(parameter: str, value: object, reason: str) -> SqsError:
    """The error for a parameter with an invalid value."""
    return invalid_value(f"Value {value} for parameter {parameter} is invalid. Reason: {reason}.")


def missing(parameter: str) -> SqsError:
    return SqsError("MissingParameter", f"The request must contain the parameter {parameter}.")

"""Every error that vlrt raises on purpose.

```
VlrtError
├── OptionError (ValueError)             an argument outside its valid choices
├── ImageError (ValueError)              a picture that cannot be read or is refused
├── TextError (ValueError)               a text that cannot be encoded or is refused
│   └── LabelError                       a label list or label set that cannot be used
├── BundleError (ValueError)             a bundle that cannot be understood
│   ├── BundleNotFoundError (FileNotFoundError)
│   ├── IntegrityError                   a file that is not the one the manifest describes
│   ├── UnknownFamilyError               a model type that no family file serves
│   └── PrecisionError                   a precision that the bundle does not hold
├── ProviderError (RuntimeError)         an execution provider that is absent or did not start
│   └── EngineMissingError (ImportError) ONNX Runtime itself is not installed
├── InferenceError (RuntimeError)        a graph that cannot be run, or that gives NaN
├── ExtraMissingError (ImportError)      a command needs an extra that is not installed
├── ExportError (ValueError)             a checkpoint that cannot become a bundle
│   └── GateError                        a variant that is not exact enough to be written
├── RequestError (ValueError)            a request to the server that cannot be understood
│   ├── LimitError                       one beyond a limit of the server
│   ├── SlowBodyError (TimeoutError)     one that did not arrive in time
│   └── NotServedError (LookupError)     a model or a task that the server does not have
├── AccessError (PermissionError)        a key that is missing or wrong
│   └── AddressError                     an address that the server may not fetch from
├── OverloadError (RuntimeError)         more work than the server takes on
│   └── DeadlineError (TimeoutError)     work that was not done in time
├── DatasetError (ValueError)            files to count accuracy on that cannot be used as they are
└── BenchmarkError (RuntimeError)        a comparison that cannot be made, or one of it that failed
```

Each derives from `VlrtError` and, as named in brackets, from the builtin that fits, so that callers
may catch either. Messages name the offending value and the valid choices.
"""


class VlrtError(Exception):
    """The root of every error that vlrt raises on purpose."""


class OptionError(VlrtError, ValueError):
    """An argument outside its valid choices."""


class ImageError(VlrtError, ValueError):
    """A picture that cannot be read, or that a documented rule refuses."""


class TextError(VlrtError, ValueError):
    """A text that cannot be encoded, or that a documented rule refuses."""


class LabelError(TextError):
    """A label list or a label set that cannot be used."""


class BundleError(VlrtError, ValueError):
    """A bundle that cannot be understood."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle, or no such file in it."""


class IntegrityError(BundleError):
    """A file that is not the one that the bundle's manifest describes."""


class UnknownFamilyError(BundleError):
    """A `model_type` that no file in `vlrt/families/` serves."""


class PrecisionError(BundleError):
    """A precision that the bundle does not hold."""


class ProviderError(VlrtError, RuntimeError):
    """An execution provider that is absent or did not start."""


class EngineMissingError(ProviderError, ImportError):
    """ONNX Runtime is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "ONNX Runtime is not installed; install one build of it: "
            'pip install "vlrt[cpu]"  or, for NVIDIA GPUs,  pip install "vlrt[gpu]"'
        )


class InferenceError(VlrtError, RuntimeError):
    """ONNX Runtime refused to run a graph on the given inputs, or it gave NaN or an infinity."""


class ExtraMissingError(VlrtError, ImportError):
    """A command needs packages of an extra that is not installed."""

    def __init__(self, what: str, extra: str, missing: str) -> None:
        super().__init__(
            f"{what} needs the package {missing!r}, which is not installed; "
            f'install the extra that has it: pip install "vlrt[{extra}]"'
        )


class ExportError(VlrtError, ValueError):
    """A checkpoint that cannot become a bundle."""


class GateError(ExportError):
    """A variant that is not exact enough to be written."""


class RequestError(VlrtError, ValueError):
    """A request to the server that cannot be understood."""


class LimitError(RequestError):
    """A request beyond a limit of the server."""


class SlowBodyError(RequestError, TimeoutError):
    """A request whose body did not arrive in time."""


class NotServedError(RequestError, LookupError):
    """A model or a task that the server does not have."""


class AccessError(VlrtError, PermissionError):
    """A request without a valid key."""


class AddressError(AccessError):
    """An address that the server may not fetch from."""


class OverloadError(VlrtError, RuntimeError):
    """More work than the server takes on.

    Args:
        message: what is full.
        retry_after: seconds after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(OverloadError, TimeoutError):
    """Work for the server that was not done in time."""


class DatasetError(VlrtError, ValueError):
    """Files to count accuracy on that are broken, incomplete or contradict each other."""


class BenchmarkError(VlrtError, RuntimeError):
    """A comparison that cannot be made: contenders disagree, or one of them failed."""

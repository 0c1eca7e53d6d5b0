"""Sends metric data to CloudWatch through aiobotocore, with one long-lived client.

Invariants: Nothing here stops the relay. A missing prerequisite or a failure raises a `SendError` that says what to do,
and the next request tries again, with a new client if the credentials were refused. aiobotocore is imported in a thread
at the first use, because the import takes a large part of a second. If CloudWatch is switched off, it is never
imported.
"""

import asyncio
import importlib
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from relay.metrics.metrics import MergedDatum
from relay.metrics.reporter import SendError
from relay.settings.settings import CloudWatchSettings

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from types_aiobotocore_cloudwatch import CloudWatchClient

CONNECT_TIMEOUT_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 5.0
MAX_ATTEMPTS = 3
"""With botocore's standard retries, a request is given up after about half a minute, before the next flush."""

_REFUSALS = frozenset(
    {
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MissingParameter",
        "MissingRequiredParameter",
        "RequestEntityTooLarge",
        "ValidationError",
    }
)
"""Error codes about the data itself. Source: PutMetricData and the common errors in CloudWatch's API reference."""

_UNAUTHORIZED = (401, 403)
"""HTTP statuses for credentials that are wrong, expired or lack permission."""

_BRIEF_CHARACTERS = 300

_NO_CREDENTIALS = (
    "There are no usable AWS credentials ({}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, use a profile or a "
    "role, or set cloudwatch.enabled to false."
)
_NO_REGION = (
    "There is no AWS region: set cloudwatch.region, AWS_DEFAULT_REGION or the profile's region, or set "
    "cloudwatch.enabled to false."
)


class CloudWatchSender:
    """Sends metric data; an async context manager that closes its connections. See `MetricSender`.

    Nothing is imported, connected or looked up before `open` or `send`.
    """

    def __init__(self, settings: CloudWatchSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._client: CloudWatchClient | None = None
        self._data_loader: object = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop_client()

    async def open(self) -> None:
        """Find region and credentials and create the client, without a request to CloudWatch.

        Raises:
            SendError: Region or credentials are missing or unusable.
        """
        async with self._translating():
            await self._ready_client()

    async def send(self, namespace: str, data: Sequence[MergedDatum]) -> None:
        """Send one PutMetricData request, compressed if it is long. Cancellation aborts the request.

        Args:
            namespace: CloudWatch namespace.
            data: At most 1000 datums, see `relay.metrics.metrics.requests`.

        Raises:
            SendError: CloudWatch did not accept the request.
        """
        async with self._translating():
            client = await self._ready_client()
            await client.put_metric_data(Namespace=namespace, MetricData=cast("Any", data))

    async def _ready_client(self) -> "CloudWatchClient":
        if self._client is not None:
            return self._client
        await asyncio.to_thread(importlib.import_module, "aiobotocore.session")
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - see the module's docstring
        from aiobotocore.session import AioSession  # noqa: PLC0415 - the same

        session = AioSession()
        if self._data_loader is not None:
            session.register_component("data_loader", self._data_loader)
        if await session.get_credentials() is None:
            raise SendError(_NO_CREDENTIALS.format("none were found"))
        self._client = await self._stack.enter_async_context(
            session.create_client(
                "cloudwatch",
                region_name=self._settings.region,
                endpoint_url=self._settings.endpoint_url,
                config=AioConfig(
                    connect_timeout=CONNECT_TIMEOUT_SECONDS,
                    read_timeout=READ_TIMEOUT_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
                    warm_up_loader_caches=True,
                ),
            )
        )
        # Parsing the service descriptions takes 0.1 s, so a new client reuses them.
        self._data_loader = session.get_component("data_loader")
        return self._client

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        """Translate the library's errors into `SendError`."""
        try:
            yield
        except SendError:
            raise
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            if _is_unauthorized(error):
                await self._drop_client()  # the next client looks up the credentials again
            raise failure from error

    async def _drop_client(self) -> None:
        self._client = None
        await self._stack.aclose()


def _is_unauthorized(error: Exception) -> bool:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - see the module's docstring

    if not isinstance(error, ClientError):
        return False
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _UNAUTHORIZED


def _failure(error: Exception) -> SendError | None:
    """Return the `SendError` for an error of the library; None for a bug in the relay."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, ClientError):
        return _client_error(error)
    # A ValueError means that something other than CloudWatch answered at the endpoint.
    return _library_error(error) if isinstance(error, (BotoCoreError, ValueError)) else None


def _client_error(error: "ClientError") -> SendError:
    code = _brief(error.response["Error"].get("Code", "Unknown")).removesuffix("Exception")
    message = _brief(error.response["Error"].get("Message", ""))
    if code in _REFUSALS:
        return SendError(f"CloudWatch refused metric data: {code}: {message}.", is_refusal=True)
    return SendError(
        f"CloudWatch answered {code}: {message}; check that the credentials are valid and allow "
        "cloudwatch:PutMetricData, or set cloudwatch.enabled to false."
    )


def _library_error(error: "BotoCoreError | ValueError") -> SendError:
    from botocore import exceptions as known  # noqa: PLC0415 - see the module's docstring

    message = _brief(str(error))
    if isinstance(error, known.ParamValidationError):
        return SendError(f"Metric data does not have the form that CloudWatch needs: {message}.", is_refusal=True)
    if isinstance(error, known.NoRegionError):
        return SendError(_NO_REGION)
    if isinstance(
        error,
        (
            known.NoCredentialsError,
            known.PartialCredentialsError,
            known.CredentialRetrievalError,
            known.ProfileNotFound,
        ),
    ):
        return SendError(_NO_CREDENTIALS.format(message))
    return SendError(
        f"CloudWatch cannot be reached: {message}; check cloudwatch.region, cloudwatch.endpoint_url and the network, "
        "or set cloudwatch.enabled to false."
    )


def _brief(text: str) -> str:
    """Return `text` as one line that fits a log. It may be a whole page from whatever answered."""
    return textwrap.shorten(text, _BRIEF_CHARACTERS, placeholder=" …").rstrip(".")

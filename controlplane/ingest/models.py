"""Who answered, and as which model: from keys, a span's name or scope, and what is left unsaid."""

from typing import Final

import numpy as np
import pyarrow as pa

from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, kernels, take_or_null
from controlplane.ingest.dialects.dialect import Field
from controlplane.ingest.dialects.operations import (
    ECHOED_MODEL,
    canonical_operation,
    split_name,
)
from controlplane.ingest.dialects.providers import (
    canonical_provider,
    provider_of_scope,
    split_model_path,
)
from controlplane.ingest.names import Names
from controlplane.ingest.reading import FieldReader


def operations(reader: FieldReader, claims: Claims, span_names: Column) -> Names:
    """Answer each span's operation: from a key, else a prefix of its name, else its form."""
    found = reader.names(Field.OPERATION, canonical_operation)
    for dialect, rows in claims.present:
        for prefix, operation in dialect.operations_by_name.items():
            found.put_where(rows & begins(span_names, prefix), operation)
        if dialect.operation_in_name:
            _from_span_names(found, rows, span_names, part=0)
    return found


def _from_span_names(names: Names, rows: Bools, span_names: Column, *, part: int) -> None:
    """Fill what is missing with a part of `{operation} {model}`."""

    def read(text: str) -> str | None:
        parts = split_name(text)
        return parts[part] if parts else None

    missing = rows & names.missing()
    if missing.any():
        names.put(missing, span_names.filter(missing), mapped=read)


def begins(span_names: Column, prefix: str) -> Bools:
    """Tell which names begin with a prefix."""
    found = kernels.starts_with(span_names, pattern=prefix)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def models(
    reader: FieldReader,
    claims: Claims,
    *,
    span_names: Column,
    scopes: Column,
    operation: Names,
    failed: Bools,
) -> dict[str, Column]:
    """Fill provider, models and join keys.

    The billing model is the deployed, else the response's, else the one asked for. Behind a gateway
    the one asked for is what the gateway asked its provider for. A failed call
    that names one model names the one that was asked for.
    """
    deployed = reader.names(Field.DEPLOYED_MODEL, lambda text: text)
    provider = _providers(reader, claims, span_names=span_names, scopes=scopes)
    _fill_from_path(provider, deployed)
    deployed_model = _model_names(deployed)
    requested = reader.names(Field.REQUEST_MODEL, present)
    answered = reader.names(Field.RESPONSE_MODEL, present)
    for dialect, rows in claims.present:
        if dialect.operation_in_name:
            _from_span_names(requested, rows, span_names, part=1)
    alias = reader.texts(Field.MODEL_ALIAS)
    request, response = requested.column(), answered.column()
    # A gateway may write its alias over the models; the deployed one is what was asked for and,
    # where the response's name is the alias too, the better answer.
    is_deployed = _mask(kernels.is_valid(deployed_model))
    hidden = (_same(response, alias) | _same(response, request)) & is_deployed
    response = _where(hidden, deployed_model, response)
    request = _where(is_deployed, deployed_model, request)
    identities = _identities(reader)
    asked = failed & requested.missing() & ~is_deployed
    request = _where(asked, response, request)
    unanswered = failed & _mask(kernels.is_null(identities["response_id"]))
    response = _where(unanswered & _same(response, request), _NOTHING, response)
    echoed = _echoed(claims, operation) & ~failed & answered.missing()
    response = _where(echoed, request, response)
    return {
        "provider": provider.column(),
        "request_model": request,
        "response_model": response,
        "billing_model": kernels.coalesce(deployed_model, response, request),
        **identities,
    }


def _providers(reader: FieldReader, claims: Claims, *, span_names: Column, scopes: Column) -> Names:
    provider = reader.names(Field.PROVIDER, canonical_provider)
    for dialect, rows in claims.present:
        if dialect.provider is not None:
            provider.put_where(rows, dialect.provider)
        for prefix, named in dialect.providers_by_name.items():
            provider.put_where(rows & begins(span_names, prefix), named)
        if dialect.provider_in_scope:
            missing = rows & provider.missing()
            provider.put(missing, scopes.filter(missing), mapped=provider_of_scope)
    return provider


def _echoed(claims: Claims, operation: Names) -> Bools:
    """Tell where the response's model is the one that was asked for, if it is not said."""
    echoes = np.array([dialect.echoes_model for dialect in claims.dialects], dtype=np.bool_)
    by_operation: Bools = operation.lookup(
        np.bool_, lambda text: text in ECHOED_MODEL, absent=False
    )
    return by_operation | echoes[claims.index]


def present(text: str) -> str | None:
    """Answer a name without the space around it; None for an empty one."""
    return text.strip() or None


def _fill_from_path(provider: Names, deployed: Names) -> None:
    """Take the provider from `provider/model` where no key named one."""
    for text in set(deployed.texts()):
        head, _ = split_model_path(text)
        if head is not None:
            provider.put_where(deployed.is_text(text), head)


def _model_names(deployed: Names) -> Column:
    texts = [split_model_path(text)[1] for text in deployed.texts()]
    return take_or_null(pa.array(texts, pa.string()), deployed.code)


def _identities(reader: FieldReader) -> dict[str, Column]:
    """Join keys. LiteLLM puts its own call id where a response had none: that is no response id."""
    response_id = reader.texts(Field.RESPONSE_ID)
    call_id = reader.texts(Field.GATEWAY_CALL_ID)
    return {
        "response_id": _where(_same(response_id, call_id), _NOTHING, response_id),
        "gateway_call_id": call_id,
    }


def _same(one: Column, other: Column) -> Bools:
    """Tell where two columns have the same text; where one has none they do not."""
    return _mask(kernels.fill_null(kernels.equal(one, other), fill_value=False))


def _where(chosen: Bools, then: Column, otherwise: Column) -> Column:
    """Take `then` where chosen; most batches choose nothing, and texts are dear to copy."""
    if not chosen.any():
        return otherwise
    return kernels.if_else(pa.array(chosen), then, otherwise)


def _mask(flags: Column) -> Bools:
    return np.asarray(flags.to_numpy(zero_copy_only=False), dtype=np.bool_)


_NOTHING: Final[Column] = pa.scalar(None, pa.string())

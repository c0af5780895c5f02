"""The data that a model was made with, as Croissant 1.0: files with digests, and the tensors of one sample.

Pure. Source: MLCommons Croissant Format Specification 1.0, http://mlcommons.org/croissant/1.0.
"""

from collections.abc import Sequence
from typing import Any, Final

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import MissingError
from seatrial.optimize.recipe.manifest import Column, Manifest

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "key": "cr:key",
    "md5": "cr:md5",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "sc": "https://schema.org/",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def dataset(chain: Sequence[Artifact]) -> dict[str, Any]:
    """Return the Croissant document of the data of a chain's source.

    Raises:
        MissingError: the source's provenance has no manifest.
    """
    source = chain[-1]
    if "data" not in source.made_by.notes:
        raise MissingError(
            "its provenance has no manifest of its data",
            where=source.short,
            next_step="build it again; an earlier version of seatrial made it, or it came as a finished file",
        )
    manifest = Manifest.from_json(source.made_by.notes["data"])
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": source.name,
        "description": f"Samples of {source.name}, by {manifest.loader} ({_rows(manifest)}); "
        f"Merkle root {manifest.root}",
        "datePublished": source.made_by.at[:10],
        "version": "1.0.0",
        "license": "unknown",
        "url": f"urn:{manifest.root}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": each.path,
                "name": each.path,
                "contentUrl": each.path,
                "contentSize": f"{each.size} B",
                "encodingFormat": "application/octet-stream",
                each.digest.partition(":")[0]: each.digest.partition(":")[2],
            }
            for each in manifest.files
        ],
        "variableMeasured": [_variable(each) for each in manifest.columns],
    }


def _rows(manifest: Manifest) -> str:
    return ", ".join(f"{split}: {'all' if rows is None else rows} rows" for split, rows in manifest.rows.items())


def _variable(column: Column) -> dict[str, Any]:
    """Return one tensor of a sample. There is no record set: only the loader knows how it follows from the files."""
    return {
        "@type": "sc:PropertyValue",
        "name": column.name,
        "value": f"{column.dtype} {list(column.shape)}",
    }

"""Tables of openml.org without a network: from a cache folder, and every way in which one cannot be had."""

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fedmeta.data import PARTITIONS
from fedmeta.data.base import EpisodeShape
from fedmeta.data.openml_table import OpenML
from fedmeta.errors import DataError

PRESENT = importlib.util.find_spec("openml") is not None
needs_openml = pytest.mark.skipif(not PRESENT, reason="install fedmeta[openml]")

VALUES = {"age": [], "sex": ["f", "m"], "ward": ["ward0", "ward1", "ward2", "ward3"], "ill": ["no", "yes"]}
"""Columns, with the values of those that have categories."""


def put_in_cache(folder: Path, status: str = "active", target: str | None = "ill") -> None:
    """A data set of 24 rows, number 7, as openml keeps it in its cache folder after fetching one."""
    folder = folder / "datasets" / "7"
    folder.mkdir(parents=True)
    named = f"<oml:default_target_attribute>{target}</oml:default_target_attribute>" if target else ""
    (folder / "description.xml").write_text(
        '<oml:data_set_description xmlns:oml="http://openml.org/openml"><oml:id>7</oml:id><oml:name>wards</oml:name>'
        "<oml:version>1</oml:version><oml:description>made for a test</oml:description><oml:format>ARFF</oml:format>"
        f"<oml:licence>Public</oml:licence><oml:url>http://127.0.0.1:9/wards.arff</oml:url><oml:file_id>1</oml:file_id>"
        f"{named}<oml:status>{status}</oml:status></oml:data_set_description>"
    )
    features, attributes = "", ""
    for i, (name, values) in enumerate(VALUES.items()):
        kind = "nominal" if values else "numeric"
        listed = "".join(f"<oml:nominal_value>{value}</oml:nominal_value>" for value in values)
        features += (
            f"<oml:feature><oml:index>{i}</oml:index><oml:name>{name}</oml:name><oml:data_type>{kind}</oml:data_type>"
            f"{listed}<oml:is_target>false</oml:is_target><oml:is_ignore>false</oml:is_ignore>"
            "<oml:is_row_identifier>false</oml:is_row_identifier>"
            "<oml:number_of_missing_values>0</oml:number_of_missing_values></oml:feature>"
        )
        attributes += f"@ATTRIBUTE {name} {'{' + ','.join(values) + '}' if values else 'NUMERIC'}\n"
    (folder / "features.xml").write_text(
        f'<oml:data_features xmlns:oml="http://openml.org/openml">{features}</oml:data_features>'
    )
    rows = [
        f"{'?' if i == 5 else 20 + i},{'f' if i % 3 else 'm'},ward{i % 4},{'yes' if i % 2 else 'no'}" for i in range(24)
    ]
    (folder / "dataset.arff").write_text(f"@RELATION wards\n{attributes}@DATA\n" + "\n".join(rows) + "\n")


class Refusing(BaseHTTPRequestHandler):
    """What openml.org answers for an id that it does not know."""

    def do_GET(self) -> None:
        body = (
            b'<oml:error xmlns:oml="http://openml.org/openml"><oml:code>111</oml:code>'
            b"<oml:message>Unknown dataset</oml:message></oml:error>"
        )
        self.send_response(412)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """openml's client with a cache of the test's own; its server knows no data set, and asks for no patience."""
    import openml

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{serving.server_port}/api/v1/xml"
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(openml.config, "server", url)
    monkeypatch.setattr(openml.config, "connection_n_retries", 1)
    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path)
    yield url
    serving.shutdown()
    serving.server_close()


def openml_folder() -> Path:
    import openml

    return Path(openml.config.get_cache_directory())


@needs_openml
def test_a_table_out_of_the_cache_folder(tmp_path: Path, server: str) -> None:
    put_in_cache(openml_folder())
    table = OpenML(id=7, path=str(tmp_path), sites=3, shift=0.0)
    assert table.input_shape == (7,) and table.classes == 2, "age, two sexes, four wards"
    dataset = table.load()
    assert dataset.names["class"] == ["no", "yes"] and dataset.labels.tolist() == [0, 1] * 12
    ages = np.array([20.0 + i for i in range(24)])
    ages[5] = np.delete(ages, 5).mean()
    assert np.allclose(dataset.examples[:, 0], (ages - ages.mean()) / ages.std(), atol=1e-5)
    assert np.bincount(dataset.columns["site"]).tolist() == [8, 8, 8]
    by_ward = OpenML(id=7, path=str(tmp_path), site="ward").load()
    assert by_ward.names["site"] == ["ward0", "ward1", "ward2", "ward3"] and by_ward.input_shape == (3,)
    partition = PARTITIONS.make("column", column="site", test_fraction=0.25, validation_clients=0)
    federation = by_ward.federate(partition, 0)
    assert [client.role for client in federation.clients] == ["train"] * 3 + ["test", "pooled"]
    other = OpenML(id=7, path=str(tmp_path), target="sex").load()
    assert other.names["class"] == ["f", "m"] and other.input_shape == (7,)
    episode = federation.source(4).sample(EpisodeShape(1, 1, 1), np.random.default_rng(0))
    assert episode.query.x.shape == (1, 3)


@needs_openml
def test_columns_that_are_not_there_are_named(tmp_path: Path, server: str) -> None:
    put_in_cache(openml_folder(), target=None)
    with pytest.raises(DataError, match=r"data set 7 names no target: set data.target to one of age, sex, ward, ill"):
        OpenML(id=7, path=str(tmp_path)).load()
    with pytest.raises(DataError, match=r"data.site = 'hospital' is no column of data set 7: age, sex"):
        OpenML(id=7, path=str(tmp_path), target="ill", site="hospital").load()


@needs_openml
def test_an_unknown_a_removed_and_a_deactivated_data_set(tmp_path: Path, server: str) -> None:
    with pytest.raises(
        DataError, match=r"data.id = 7: openml.org knows no such data set; it never was, or was removed"
    ):
        OpenML(id=7, path=str(tmp_path)).load()
    put_in_cache(openml_folder(), status="deactivated")
    with pytest.raises(DataError, match=r"data.id = 7: this data set is deactivated on openml.org"):
        OpenML(id=7, path=str(tmp_path)).load()


@needs_openml
def test_no_network_and_nothing_in_the_cache(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import openml

    monkeypatch.setattr(openml.config, "server", "http://127.0.0.1:9/api/v1/xml")
    with pytest.raises(DataError, match=r"cannot be reached, and the cache folder does not hold .*Set data.path"):
        OpenML(id=7, path=str(tmp_path)).load()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openml", None)
    with pytest.raises(DataError, match=r"needs the package openml: install fedmeta\[openml\]"):
        OpenML(id=31).load()


def test_rows_without_a_class_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    pandas = pytest.importorskip("pandas", reason="comes with fedmeta[openml]")
    frame = pandas.DataFrame(
        {"age": [1.0, 2.0, 3.0, 4.0], "ill": ["no", None, "yes", "no"], "ward": ["a", "a", "b", None]}
    )
    monkeypatch.setattr(OpenML, "_fetched", lambda self: (None, frame))
    dataset = OpenML(id=7, target="ill", site="ward").load()
    assert dataset.names == {"class": ["no", "yes"], "site": ["a", "b"]} and dataset.labels.tolist() == [0, 1]
    assert "data.id = 7: 2 of 4 rows have no class or site, and are left out" in caplog.text
    frame["ill"] = None
    with pytest.raises(DataError, match=r"no row with a class: set data\.target"):
        OpenML(id=7, target="ill", site="ward").load()

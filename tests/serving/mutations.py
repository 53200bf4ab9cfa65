"""Random changes to a bundle, of bytes and of structure, with digests left as they were or computed anew.

Whoever means harm computes them anew: digests only find what happened by accident.
"""

import hashlib
import json
import struct

import numpy as np
import onnx
import polars as pl
from onnx import AttributeProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from ctr.serving.graph_shapes import OPERATORS
from ctr.serving.manifest import render_manifest

NASTY = [
    None, True, 0, 1, -1, 2, 7, 10**6, 10**12, 2**63, 10**30, 0.5, -1.5, 1e308, "", "x", "../x", "/etc/passwd", "user",
    "lookup", "a" * 10_000, "\x00", [], [[]], [0, 1], [10**9, 10**9], {}, {"a": {}}, [["layers", 10**9]], "1 + 1",
    "SUM(price)", "REPEAT('x', 1000000000)", "(" * 500, ["user"] * 3, -(2**63), "Europe/Nowhere", "bundle", "path",
]  # fmt: skip


def sign(bundle):
    """Compute all digests anew."""
    path = bundle / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in content["files"].items():
            data = (bundle / name).read_bytes()
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        path.write_text(render_manifest(content), encoding="utf-8")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return  # the manifest is no manifest any more


def mutate(bundle, draw):
    """Change a bundle in one way; what was done, and whether digests are those of the new content."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    changes = [_bytes, _bytes, _json, _json, _parquet, _parquet, _tensors, _header, _graph, _graph, _many]
    change = draw.choice(changes)
    done = change(bundle, files, draw)
    signed = draw.random() < 0.75
    if signed:
        sign(bundle)
    return done, signed


def _many(bundle, files, draw):
    return [draw.choice([_bytes, _json, _parquet, _tensors, _graph])(bundle, files, draw) for _ in range(3)]


def _bytes(bundle, files, draw):
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data) + 1)
    # The ends of binary files are what readers believe first.
    if draw.random() < 0.5:
        at = draw.choice([min(len(data), draw.randrange(64)), max(0, len(data) - draw.randrange(400))])
    kind = draw.choice(["flip", "set", "cut", "insert", "drop", "copy", "number"])
    if kind == "flip" and at < len(data):
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "set" and at < len(data):
        data[at] = draw.choice([0, 1, 127, 128, 255])
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = draw.randbytes(draw.randrange(1, 20))
    elif kind == "drop":
        del data[at : at + draw.randrange(1, 20)]
    elif kind == "copy":
        start = draw.randrange(len(data) + 1)
        data[at:at] = data[start : start + draw.randrange(1, 100)]
    else:
        data[at : at + 4] = draw.choice(
            [b"\xff\xff\xff\x7f", b"\x00" * 4, b"\xff" * 4, struct.pack("<i", -7)]
        )
    path.write_bytes(data)
    return kind, path.name, at


def _json(bundle, files, draw):
    path = bundle / draw.choice(["manifest.json", "manifest.json", "schema.json", "encoding.json"])
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "no JSON any more"
    places = list(_places(content))
    if not places:
        return "nothing in it"
    holder, key = draw.choice(places)
    value = draw.choice([*NASTY, *(one[other] for one, other in draw.sample(places, min(3, len(places))))])
    kind = draw.choice(["set", "set", "set", "delete", "add"])
    if kind == "delete":
        del holder[key]
    elif kind == "add" and isinstance(holder, dict):
        holder[draw.choice(["extra", "rows", "layers", "fields"])] = value
    elif kind == "add":
        holder.insert(0, value)
    else:
        holder[key] = value
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "a value within itself"
    path.write_text(text, encoding="utf-8")
    return kind, path.name, key, value


def _places(content):
    pending = [content]
    while pending:
        holder = pending.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                pending.append(holder[key])


def _parquet(bundle, files, draw):
    path = draw.choice([path for path in files if path.suffix == ".parquet"] or files)
    try:
        frame = pl.read_parquet(path)
    except Exception:
        return "no parquet any more"
    if not frame.width or not frame.height:
        return "an empty frame"
    name = draw.choice(frame.columns)
    kind = draw.choice(
        ["drop", "rename", "type", "null", "shuffle", "repeat", "rows", "add", "cells", "nest"]
    )
    column = frame[name]
    if kind == "drop":
        frame = frame.drop(name)
    elif kind == "rename":
        frame = frame.rename({name: draw.choice(["", "x", "@probability2", "id "])})
    elif kind == "type":
        wanted = draw.choice(
            [pl.String, pl.Int8, pl.Int64, pl.Float32, pl.Boolean, pl.Date, pl.Binary, pl.UInt64]
        )
        try:
            frame = frame.with_columns(column.cast(wanted, strict=False))
        except pl.exceptions.PolarsError:
            return "no such cast"
    elif kind == "null":
        frame = frame.with_columns(pl.lit(None, dtype=column.dtype).alias(name))
    elif kind == "shuffle":
        frame = frame.with_columns(column.shuffle(seed=1))
    elif kind == "repeat":
        frame = pl.concat([frame] * draw.choice([2, 50]))
    elif kind == "rows":
        frame = frame.head(draw.randrange(frame.height))
    elif kind == "add":
        frame = frame.with_columns(draw.choice([pl.lit(1), pl.lit("a"), pl.lit([1])]).alias("extra"))
    elif kind == "nest":
        frame = frame.with_columns(draw.choice([pl.struct(name), pl.concat_list(name)]).alias(name))
    else:
        cells = column.to_list()
        cells[draw.randrange(len(cells))] = draw.choice(cells) if draw.random() < 0.5 else None
        frame = frame.with_columns(pl.Series(name, cells, dtype=column.dtype))
    frame.write_parquet(path)
    return kind, path.name, name


def _tensors(bundle, files, draw):
    path = bundle / "weights.safetensors"
    try:
        tensors = dict(load_file(path))
    except Exception:
        return "no tensors any more"
    if not tensors:
        return "no tensors"
    name = draw.choice(sorted(tensors))
    array = tensors[name]
    kind = draw.choice(["values", "values", "shape", "type", "drop", "rename", "add", "rows"])
    if kind == "values" and array.size:
        array = array.copy()
        value = draw.choice([np.nan, np.inf, 1e38, -1e38, 0, 1e-45])
        with np.errstate(all="ignore"):
            array.reshape(-1)[draw.randrange(array.size)] = value if array.dtype.kind == "f" else 1
        tensors[name] = array
    elif kind == "shape":
        flat = array.reshape(-1)
        tensors[name] = draw.choice([flat, array.reshape(1, *array.shape), array.T, flat[:0]])
    elif kind == "type":
        with np.errstate(all="ignore"):
            tensors[name] = array.astype(draw.choice(["f2", "f8", "i4", "i8", "u1", "?"]))
    elif kind == "drop":
        del tensors[name]
    elif kind == "rename":
        tensors[draw.choice(["x", "gate.weight", "table.weight "])] = tensors.pop(name)
    elif kind == "add":
        tensors["extra"] = np.zeros((0, 2**40) if draw.random() < 0.3 else 3, np.float32)
    elif kind == "rows" and array.ndim:
        tensors[name] = np.concatenate([array, array[: draw.randrange(3)]])
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return kind, name


def _graph(bundle, files, draw):
    """The graph with another structure: operators, inputs, attributes, constants, and nodes in between."""
    path = bundle / "network.onnx"
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:
        return "no graph any more"
    graph = model.graph
    names = [each.name for each in (*graph.input, *graph.initializer)]
    names += [name for node in graph.node for name in node.output]
    constants = [each for each in graph.initializer if not each.external_data]
    done = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        if not graph.node:
            break
        node, kind = draw.choice(graph.node), draw.choice(["operator", "input", "attribute", "constant"] * 2 + [
            "less", "more", "between", "swap"])  # fmt: skip
        done.append((kind, node.op_type))
        if kind == "operator":
            node.op_type = draw.choice(sorted(OPERATORS))
        elif kind == "input" and node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice(names)
        elif kind == "swap" and len(node.input) > 1:
            node.input[0], node.input[1] = node.input[1], node.input[0]
        elif kind == "attribute" and node.attribute:
            _other_attribute(draw.choice(node.attribute), draw)
        elif kind == "constant" and constants:
            done.append(_other_constant(draw.choice(constants), draw))
        elif kind == "less" and node.input:
            del node.input[-1]
        elif kind == "more":
            node.input.append(draw.choice(names))
        elif kind == "between":
            inputs = [draw.choice(names) for _ in range(draw.choice([1, 2, 2, 3]))]
            new = helper.make_node(draw.choice(sorted(OPERATORS)), inputs, [f"new{len(graph.node)}"])
            at = draw.randrange(len(graph.node))
            graph.node.insert(at, new)
            if graph.node[at + 1].input:
                graph.node[at + 1].input[0] = new.output[0]
    path.write_bytes(model.SerializeToString())
    return "graph", done


def _other_attribute(attribute, draw):
    if attribute.type == AttributeProto.INT:
        attribute.i = draw.choice([-1, -2, 0, 1, 2, 3, 5, 2**31, -(2**63), 2**62, 10, 16])
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = draw.choice([0.0, -1.0, 1e38, float("nan")])
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice([-1, -5, 0, 1, 7, 2**40])


def _other_constant(tensor, draw):
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:
        return "no constant any more"
    if array.size:
        numbers = [-1, 0, 1, 2, 7, 1000, 2**31 - 1, -(2**31), 2**62, -(2**63)]
        array.reshape(-1)[draw.randrange(array.size)] = draw.choice(numbers) if array.dtype == np.int64 else 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return tensor.name, str(array.tolist())[:60]


def _header(bundle, files, draw):
    path = bundle / "weights.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.4:
        claimed = draw.choice([0, 1, size - 1, size + 1, 2**20, 2**40, 2**63, 2**64 - 1, len(data)])
        path.write_bytes(claimed.to_bytes(8, "little") + data[8:])
        return "claims", claimed
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        return "no header any more"
    places = list(_places(header))
    holder, key = draw.choice(places)
    holder[key] = draw.choice(
        [0, 1, 2**31, 2**40, 2**63, -1, [], [0], "F32", "F16", "I64", "BOOL", "X", None]
    )
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return "header", key

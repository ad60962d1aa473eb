"""A long context without its prefill: the saved state of a short one, its cells repeated.

The state of one sequence is, as this version of llama.cpp writes it (little endian):

    u32 magic · i32 sequence · u32 streams = 1 · u32 cells
    cells × (i32 position · u32 sequences = 1 · i32 sequence)
    u32 whether the values are transposed · u32 layers
    layers × (i32 type · u64 bytes of a row · cells × row)                             keys
    layers × the same                                                                 values, not transposed
    layers × (i32 type · u32 bytes of an element · u32 rows · rows × cells × element)  values, transposed

llama.cpp checks types, sizes and counts when it reads the state back.
"""
import struct

import numpy as np


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def fields(self, layout):
        size = struct.calcsize(layout)
        self.at += size
        return struct.unpack(layout, self.data[self.at - size:self.at])

    def array(self, *shape):
        size = int(np.prod(shape))
        self.at += size
        return np.frombuffer(self.data, np.uint8, size, self.at - size).reshape(shape)


def tile(data, times):
    """The state with its cells `times` times in a row, at positions 0, 1, 2 …"""
    source = Reader(data)
    magic, sequence, streams, cells = source.fields("<IiII")
    if streams != 1:
        raise ValueError(f"{streams} streams in the state: one is expected")
    for index in range(cells):
        position, count, owner = source.fields("<iIi")
        if (position, count, owner) != (index, 1, sequence):
            raise ValueError(f"cell {index} of the state is {(position, count, owner)}: another format of the state")
    parts = [struct.pack("<IiII", magic, sequence, streams, cells * times)]
    parts += [struct.pack("<iIi", position, 1, sequence) for position in range(cells * times)]
    transposed, layers = source.fields("<II")
    parts.append(struct.pack("<II", transposed, layers))
    for part in range(2 * layers):
        if part >= layers and transposed:
            kind, element, rows = source.fields("<iII")
            parts += [struct.pack("<iII", kind, element, rows),
                      np.tile(source.array(rows, cells * element), (1, times)).tobytes()]
        else:
            kind, size = source.fields("<iQ")
            parts += [struct.pack("<iQ", kind, size), np.tile(source.array(cells, size), (times, 1)).tobytes()]
    if source.at != len(data):
        raise ValueError(f"{len(data) - source.at} bytes left over in the state: another format of the state")
    return b"".join(parts)

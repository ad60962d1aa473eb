//! 4 bits a value: `value = (q - 8) * scale` with q from 0 to 15.

/// Quantizes one block; returns its scale. The value of largest magnitude becomes exactly q = 0, so that the longer,
/// negative half of the range is used whatever its sign.
pub fn quantize(values: &[f32], out: &mut [u8]) -> f32 {
    let extreme = values.iter().copied().fold(0.0f32, |max, value| if value.abs() > max.abs() { value } else { max });
    let scale = extreme / -8.0;
    let level = |value: f32| match scale {
        0.0 => 8,
        scale => ((value / scale).round_ties_even() + 8.0).clamp(0.0, 15.0) as u8,
    };
    for (pair, byte) in values.chunks_exact(2).zip(out) {
        *byte = level(pair[0]) | level(pair[1]) << 4;
    }
    scale
}

/// The values of one block.
pub fn dequantize(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = f32::from((byte & 15) as i8 - 8) * scale;
        pair[1] = f32::from((byte >> 4) as i8 - 8) * scale;
    }
}

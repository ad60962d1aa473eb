//! 8 bits a value: `value = (q - 128) * scale` with q from 1 to 255.

/// Quantizes one block; returns its scale.
pub fn quantize(values: &[f32], out: &mut [u8]) -> f32 {
    let extreme = values.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let scale = extreme / 127.0;
    for (value, byte) in values.iter().zip(out) {
        *byte = match scale {
            0.0 => 128,
            scale => ((value / scale).round_ties_even().clamp(-127.0, 127.0) + 128.0) as u8,
        };
    }
    scale
}

/// The values of one block.
pub fn dequantize(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (byte, value) in bytes.iter().zip(out) {
        *value = (f32::from(*byte) - 128.0) * scale;
    }
}

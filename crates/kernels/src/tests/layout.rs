//! What a matrix is refused for.

use crate::{Bits, LayoutError, Matrix, Shape};

#[test]
fn blocks_and_columns() {
    assert_eq!(Shape::new(2, 64, Bits::Four, 16), Err(LayoutError::Block(16)));
    assert_eq!(Shape::new(2, 64, Bits::Four, 0), Err(LayoutError::Block(0)));
    assert_eq!(Shape::new(2, 256, Bits::Four, 256), Err(LayoutError::Block(256)));
    assert_eq!(Shape::new(2, 96, Bits::Four, 64), Err(LayoutError::Columns { columns: 96, block: 64 }));
    assert_eq!(Shape::new(2, 33, Bits::Eight, 32), Err(LayoutError::Columns { columns: 33, block: 32 }));
}

#[test]
fn sizes_of_slices() {
    for (bits, bytes) in [(Bits::Four, 3 * 64), (Bits::Eight, 3 * 128)] {
        let shape = Shape::new(3, 128, bits, 64).unwrap();
        let (values, scales) = (vec![0; bytes + 1], [0.0; 7]);
        assert!(Matrix::new(shape, &values[..bytes], &scales[..6]).is_ok());
        let error = |tensor, found, needed| LayoutError::Size { tensor, found, needed, rows: 3, columns: 128 };
        for found in [0, bytes - 1, bytes + 1] {
            let refused = Matrix::new(shape, &values[..found], &scales[..6]).map(|_| ());
            assert_eq!(refused, Err(error("values", found, bytes)));
        }
        for found in [0, 5, 7] {
            let refused = Matrix::new(shape, &values[..bytes], &scales[..found]).map(|_| ());
            assert_eq!(refused, Err(error("scales", found, 6)));
        }
    }
}

/// A size that no address can hold is no small one.
#[test]
fn sizes_beyond_all_memory() {
    let shape = Shape::new(1 << 34, 1 << 35, Bits::Eight, 32).unwrap();
    assert!(matches!(Matrix::new(shape, &[], &[]), Err(LayoutError::Size { tensor: "values", found: 0, .. })));
}

#[test]
fn messages() {
    assert_eq!(LayoutError::Block(16).to_string(), "block_size is 16; 32, 64 and 128 are known");
    let shape = Shape::new(3, 128, Bits::Four, 64).unwrap();
    let message = Matrix::new(shape, &[0; 5], &[0.0; 6]).map(|_| ()).unwrap_err().to_string();
    assert_eq!(message, "values has 5 elements; 3 rows of 128 values need 192");
}

#[test]
fn bits() {
    assert_eq!(Bits::from_count(4), Some(Bits::Four));
    assert_eq!(Bits::from_count(8), Some(Bits::Eight));
    for other in [i64::MIN, -4, 0, 2, 16] {
        assert_eq!(Bits::from_count(other), None);
    }
}

//! File names in layers, which come from outside.

const LONGEST: usize = 255;

/// Checks a layer's `org.cncf.model.filepath`: a relative path with `/` between its components that cannot leave the
/// directory into which it may be unpacked.
///
/// # Errors
/// Says what is allowed.
pub fn check_filepath(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > LONGEST {
        return Err("1 to 255 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\' || c == ':') {
        return Err("a path without control characters, `\\` and `:`");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a relative path without empty, `.` and `..` components");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_the_directory_pass() {
        for path in ["graph.onnx", "weights/layer-00.bin", "a b", "..a", "é.json"] {
            assert_eq!(check_filepath(path), Ok(()), "{path}");
        }
        let long = "a".repeat(256);
        for path in ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "a\\b", "C:/x", "a\0b", "a\nb", &long]
        {
            assert!(check_filepath(path).is_err(), "{path:?}");
        }
    }
}

//! Finding ONNX Runtime's shared library, and checking it before anything relies on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::session;

/// The oldest version that has every operator of our graphs (`TensorScatter` came to the CPU with it).
const OLDEST: &str = "1.25";
/// The name under which Linux packages install it.
const FILE_NAME: &str = "libonnxruntime.so";
/// Where `deploy/fetch-onnxruntime.sh` puts it, below the repository.
const FETCHED: &str = ".cache/onnxruntime";
/// How many folders above the executable are looked through for the repository's copy (`target/release/deps/…`).
const LEVELS_UP: usize = 5;

/// Where to look for the library. What the caller names is used or refused, never passed over.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// From the configuration (`engine.library`): comes first.
    pub configured: Option<PathBuf>,
    /// From the environment (`ORT_DYLIB_PATH`): comes second.
    pub environment: Option<PathBuf>,
    /// The running executable: `../lib/recurve` beside it, then the repository it was built in.
    pub executable: Option<PathBuf>,
}

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Nothing was found.
    #[error(
        "ONNX Runtime was not found; looked for {}. Run deploy/fetch-onnxruntime.sh, or set engine.library or ORT_DYLIB_PATH to libonnxruntime.so",
        list(looked)
    )]
    NotFound {
        /// Every file that was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file that the caller named is not there.
    #[error("{}: no such file; {named} names it as ONNX Runtime's library", path.display())]
    Named {
        /// The file.
        path: PathBuf,
        /// Who named it.
        named: &'static str,
    },
    /// The library computes on no GPU.
    #[error(
        "engine.provider = cuda, but {}, ONNX Runtime {version}, has no CUDA provider: name a library that has one, such as JetPack's, \
         in engine.library or ORT_DYLIB_PATH, or set engine.provider = cpu",
        library.display()
    )]
    NoCuda {
        /// The library.
        library: PathBuf,
        /// Its version.
        version: String,
    },
    /// The file is not a library that this program can use.
    #[error("{}: cannot be used: {reason}. ONNX Runtime {OLDEST} or later is needed; deploy/fetch-onnxruntime.sh fetches one that was tested", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Search {
    /// The file to load.
    ///
    /// # Errors
    /// A named file does not exist, or none is named and none of the usual places has one.
    pub fn find(&self) -> Result<PathBuf, LibraryError> {
        let named = [(&self.configured, "engine.library"), (&self.environment, "ORT_DYLIB_PATH")];
        for (path, named) in named {
            if let Some(path) = path {
                return match path.is_file() {
                    true => Ok(path.clone()),
                    false => Err(LibraryError::Named { path: path.clone(), named }),
                };
            }
        }
        let looked = self.usual_places();
        match looked.iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => Err(LibraryError::NotFound { looked }),
        }
    }

    fn usual_places(&self) -> Vec<PathBuf> {
        let Some(folder) = self.executable.as_deref().and_then(Path::parent) else { return Vec::new() };
        let installed = folder.parent().map(|root| root.join("lib/recurve").join(FILE_NAME));
        let fetched = folder.ancestors().take(LEVELS_UP).map(|above| above.join(FETCHED).join(FILE_NAME));
        installed.into_iter().chain(fetched).collect()
    }
}

/// ONNX Runtime, loaded. A process has at most one; clones share it.
#[derive(Debug, Clone)]
pub struct Library {
    pub(crate) environment: Environment,
    path: Arc<Path>,
}

impl Library {
    /// Loads the library and makes the environment of the process. ONNX Runtime's messages go to `tracing`, its telemetry
    /// is off.
    ///
    /// # Errors
    /// The file is no ONNX Runtime, is older than 1.25, or the process already has an environment.
    pub fn load(path: &Path) -> Result<Self, LibraryError> {
        let unusable = |reason: String| LibraryError::Unusable { path: path.to_owned(), reason };
        // The loader takes a relative path as relative to the executable.
        let absolute = std::path::absolute(path).map_err(|error| unusable(error.to_string()))?;
        let builder = ort::init_from(&absolute).map_err(|error| unusable(error.to_string()))?;
        let environment = builder
            .with_name("recurve")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        Ok(Self { environment, path: absolute.into() })
    }

    /// Asks for a provider of NVIDIA GPUs in it.
    ///
    /// # Errors
    /// It has none.
    pub fn expect_cuda(&self) -> Result<(), LibraryError> {
        if session::has_cuda() {
            return Ok(());
        }
        Err(LibraryError::NoCuda { library: self.path().to_owned(), version: self.version() })
    }

    /// Its version without the patch, as in `1.28`.
    pub fn version(&self) -> String {
        ort::util::probe(&*self.path).map_or_else(|| "unknown".to_owned(), |minor| format!("1.{minor}"))
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_is_never_passed_over() {
        let search = Search {
            configured: Some("/nowhere/libonnxruntime.so".into()),
            environment: Some("/elsewhere/libonnxruntime.so".into()),
            executable: None,
        };
        let error = search.find().unwrap_err().to_string();
        assert!(error.contains("/nowhere/") && error.contains("engine.library"), "{error}");
        let search = Search { configured: None, ..search };
        let error = search.find().unwrap_err().to_string();
        assert!(error.contains("/elsewhere/") && error.contains("ORT_DYLIB_PATH"), "{error}");
    }

    #[test]
    fn the_usual_places_begin_beside_the_executable() {
        let search = Search { executable: Some("/opt/recurve/bin/recurved".into()), ..Search::default() };
        let places = search.usual_places();
        assert_eq!(places[0], Path::new("/opt/recurve/lib/recurve/libonnxruntime.so"));
        let error = search.find().unwrap_err().to_string();
        assert!(error.contains("fetch-onnxruntime.sh") && error.contains("/opt/recurve/lib/recurve"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_by_name() {
        let file = std::env::current_exe().unwrap().with_file_name("no-library.so");
        std::fs::write(&file, "not a library").unwrap();
        let error = Library::load(&file).unwrap_err().to_string();
        assert!(error.contains("no-library.so") && error.contains("1.25"), "{error}");
    }
}

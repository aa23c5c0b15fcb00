//! Where files are: the XDG directories, or the systemd ones when a unit sets them.

use std::env;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::error::{Exit, Problem};

/// The configuration of the whole machine, read when the user has none.
const SYSTEM_CONFIG: &str = "/etc/micro/micro.toml";

/// The directories and files of this user. Nothing is created here.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The file that is read: asked for, of the user, or of the machine. It exists.
    pub config: Option<PathBuf>,
    /// The user's file, whether it exists or not.
    pub user_config: PathBuf,
    /// Keys and tables: one directory a network, in it one a node.
    pub state: PathBuf,
    /// Admin sockets of this user, one a node; must be mode 0700.
    pub runtime: PathBuf,
}

impl Paths {
    /// The paths of this user; `config` is the file that was asked for.
    ///
    /// # Errors
    /// M4004 when the file asked for is not there, M6002 when the user has no home directory.
    pub fn find(config: Option<&Path>) -> Result<Self, Problem> {
        let base = etcetera::choose_base_strategy()
            .map_err(|error| Problem::machine("this user has no home directory", &error))?;
        let user_config = match variable("CONFIGURATION_DIRECTORY") {
            Some(systemd) => systemd.join("micro.toml"),
            None => base.config_dir().join("micro").join("micro.toml"),
        };
        let asked = config
            .map(Path::to_owned)
            .or_else(|| env::var_os("MICRO_NODE_CONFIG").map(PathBuf::from));
        let config = match asked {
            Some(asked) if !asked.is_file() => {
                let what = format!("there is no configuration file {}", asked.display());
                return Err(Problem::new("M4004", Exit::Config, what)
                    .why("--config or MICRO_NODE_CONFIG names it")
                    .attempt("micro config path", "where files are looked for"));
            }
            Some(asked) => Some(asked),
            None => {
                [user_config.clone(), SYSTEM_CONFIG.into()].into_iter().find(|path| path.is_file())
            }
        };
        let state = match variable("STATE_DIRECTORY") {
            Some(systemd) => systemd,
            None => base.state_dir().unwrap_or_else(|| base.data_dir()).join("micro"),
        };
        let runtime = match (variable("RUNTIME_DIRECTORY"), variable("XDG_RUNTIME_DIR")) {
            (Some(systemd), _) => systemd,
            (None, Some(runtime)) => runtime.join("micro"),
            (None, None) => format!("/tmp/micro-{}", rustix::process::getuid().as_raw()).into(),
        };
        Ok(Self { config, user_config, state, runtime })
    }

    /// The admin socket of the node of this name.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.runtime.join(format!("{node}.sock"))
    }
}

/// An absolute path in the environment; the XDG specification ignores relative ones.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

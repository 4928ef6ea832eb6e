//! Where the benchmark's servers stand: one temporary directory, one account that they run as, PostgreSQL's programs.

use std::error::Error;
use std::path::{Path, PathBuf};

use gcs::playground::account::Account;
use gcs::playground::cluster::Cluster;
use gcs::playground::group::find_postgres;
use postgres_r_tests::harness::ports;

pub struct Site {
    directory: tempfile::TempDir,
    pub account: Account,
    pub bin: PathBuf,
}

impl Site {
    pub fn make() -> Result<Site, Box<dyn Error>> {
        let directory = tempfile::Builder::new().prefix("postgres_r.bench.").tempdir()?;
        let account = Account::choose()?;
        account.give(directory.path())?;
        Ok(Site { directory, account, bin: find_postgres()? })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A directory for one server, by the path that the kernel knows it by.
    pub fn home(&self, name: &str) -> Result<PathBuf, Box<dyn Error>> {
        let home = self.directory.path().canonicalize()?.join(name);
        std::fs::create_dir(&home)?;
        self.account.give(&home)?;
        Ok(home)
    }

    /// A PostgreSQL that is not made yet.
    pub fn cluster(&self, name: &str) -> Result<Cluster, Box<dyn Error>> {
        let home = self.home(name)?;
        Ok(Cluster { bin: self.bin.clone(), account: self.account.clone(), home, port: ports::free_one() })
    }
}

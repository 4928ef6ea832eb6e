//! `gcs init`: the first node of a group, which is a full one, and its authority.

use clap::Args;
use gcs_writeset::NodeKind;

use super::error::CommandError;
use super::files::{FOR_ALL, FOR_THE_OWNER, NewFiles};
use super::layout::{Layout, LayoutArgs};
use crate::config::{Written, check_address, check_name};
use crate::enrolment::authority::{self, Authority};
use crate::tls::NodeName;

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The group, which START REPLICATION IN GROUP names.
    #[arg(long, value_name = "GROUP")]
    group: String,
    /// This node.
    #[arg(long, value_name = "NODE")]
    name: String,
    /// Where this daemon listens, and the others find it.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub fn run(args: &InitArgs) -> Result<(), CommandError> {
    check_name("--group", &args.group).map_err(CommandError::Usage)?;
    check_name("--name", &args.name).map_err(CommandError::Usage)?;
    check_address("--address", &args.address).map_err(CommandError::Usage)?;
    let layout = args.layout.resolve()?;
    let name = NodeName::new(&args.group, &args.name);
    let mut new = NewFiles::new(layout.owner);
    write(&mut new, &layout, &name, &args.address)?;
    new.keep();
    println!(
        "group {} has an authority, and node {} a certificate of it, in {}",
        args.group,
        args.name,
        layout.certificates().display()
    );
    println!("now run: gcs run --config {}", layout.config.display());
    Ok(())
}

fn write(new: &mut NewFiles, layout: &Layout, name: &NodeName, address: &str) -> Result<(), CommandError> {
    let (ca_file, ca_key_file) = (layout.ca_file(), layout.ca_key_file());
    let (certificate_file, key_file) = (layout.certificate_file(), layout.key_file());
    let pair = authority::make_authority(name)?;
    new.directory(&layout.certificates())?;
    new.file(&ca_key_file, FOR_THE_OWNER, &pair.key)?;
    new.file(&ca_file, FOR_ALL, &pair.certificate)?;
    let request = authority::make_request(name)?;
    let certificate = Authority::load(&ca_key_file, &ca_file)?.sign(name, &request.request)?;
    new.file(&key_file, FOR_THE_OWNER, &request.key)?;
    new.file(&certificate_file, FOR_ALL, &authority::to_pem([&certificate[..]]))?;
    let written = Written {
        by: "gcs init",
        name: &name.node,
        group: &name.group,
        data_directory: &layout.data_directory(),
        local_socket: &layout.socket,
        peer_address: address,
        kind: NodeKind::Full,
        join: &[],
        postgresql: None,
        ca_file: &ca_file,
        certificate_file: &certificate_file,
        key_file: &key_file,
        ca_key_file: Some(&ca_key_file),
    };
    new.file(&layout.config, FOR_ALL, &written.text())
}

# shellcheck shell=bash
# docs/install.md, typed into a new system as it stands.

guide_points() { point "every command of docs/install.md does what the page shows" follows_the_guide; }

follows_the_guide() {
    bring "$package" "$demo" "$programs/typist" "$repository/docs/install.md"
    # For some seconds after the start, processes that systemd made and that are not programs yet hold copies of its sockets.
    sleep 5
    # In the folder that the packages were copied to.
    on 'mkdir guide; mv ./*.deb guide/; ./typist install.md guide'
    figure "$(on '. /etc/os-release; echo "$PRETTY_NAME"')"
}

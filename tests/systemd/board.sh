# shellcheck shell=bash
# The arm64 package on an emulated board.

board_points() {
    need "the arm64 package is installed, and the service is up" installs
    need "the demo model is deployed and answers on the board" deploys
    point "nothing is warned of on the board" no_warnings
    point "systemctl status tells how it is on the board" status_in_words_of_board
    point "it has no rights on the board, and sees little" hardened
    point "it restarts on the board, and answers" restarts_on_board
}

status_in_words_of_board() {
    there 60 'systemctl show -P StatusText recurved | grep "^serving demo-model: idle$"'
    figure "$(on "agent-cli node describe --on $socket | grep -E 'instruction|cpu' | tr -s ' ' | tr '\n' ',' | sed 's/,$//'")"
}

restarts_on_board() {
    on 'systemctl restart recurved; systemctl is-active recurved.service recurved.socket'
    answers
}

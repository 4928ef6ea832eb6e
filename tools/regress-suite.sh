# What the programs that run suites of pg_regress's share: PostgreSQL's own, and contrib's. Each file of a suite is run by pg_regress, by
# itself, on a plain server and on one node of a group of three; what is printed there and here is compared. They source this file
# after they have set what tools/postgres-suite.sh asks for, and:
#
#   LIST   the list of files that differ, below the project's directory
#
# It sources tools/postgres-suite.sh. A file of the suite is named by what comes before ".sql" in the directory sql/ of its input.

FILE_SECONDS_MAX=${FILE_SECONDS_MAX:-300}
PREFIX="log_line_prefix = '%e %q%a '"
. "$root/tools/postgres-suite.sh"
regress=${PG_REGRESS:-$(suite_program regress/pg_regress)}

prepare_output() {
    rm -rf "$OUT/plain" "$OUT/group" "$OUT/diff" "$OUT/dump" "$OUT/logs"
    mkdir -p "$OUT/plain" "$OUT/group" "$OUT/diff" "$OUT/dump" "$OUT/logs"
    rm -f "$OUT"/verify*
    : > "$OUT/plain.times" > "$OUT/group.times"
}

start_regress_servers() {
    start_servers "max_connections = 200
max_wal_size = '1GB'
max_wal_senders = 4
max_worker_processes = 32"
    for port in "$plain_port" "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "ALTER SYSTEM SET $PREFIX"
        query "$port" postgres "SELECT FROM pg_reload_conf()" > /dev/null
    done
}

# What the suites' tests call in C.
build_library() {
    mkdir -p "$work/lib"
    cc -O2 -shared -fPIC -I"$("$PG_CONFIG" --includedir-server)" -o "$work/lib/regress.so" "$source/src/test/regress/regress.c"
}

# The database as pg_regress makes it.
prepare_database() { # port
    for setting in lc_messages lc_monetary lc_numeric lc_time; do
        query "$1" postgres "ALTER DATABASE $DATABASE SET $setting TO 'C'"
    done
    query "$1" postgres "ALTER DATABASE $DATABASE SET bytea_output TO 'hex'"
    query "$1" postgres "ALTER DATABASE $DATABASE SET timezone_abbreviations TO 'Default'"
    # Nothing but what both say is compared; the plain server makes nothing of it.
    query "$1" postgres "ALTER DATABASE $DATABASE SET postgres_r.warn_of_local_data TO off"
}

out_of_service() { # prints the ports of nodes that are not online
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" "$DATABASE" "DO \$\$ BEGIN ASSERT (SELECT state FROM postgres_r.members WHERE is_self) = 'online'; END \$\$" \
            2> /dev/null || printf '%s ' "$port"
    done
}

# One file after the other.
run_files() { # plain or group, port, directory of input, files
    where=$1 port=$2 input=$3 missing=
    shift 3
    as_server mkdir -p "$work/$where/results"
    for file; do
        began=$(date +%s)
        status=0
        (cd "$input" && as_server timeout "$FILE_SECONDS_MAX" "$regress" --use-existing --dbname="$DATABASE" --host=127.0.0.1 \
            --port="$port" --user=postgres --bindir="$bin" --dlpath="$work/lib" --inputdir="$input" --outputdir="$work/$where" \
            "$file") > "$OUT/$where.driver" 2>&1 || status=$?
        sed "s|$work/$where|OUTPUT|g" "$work/$where/results/$file.out" > "$OUT/$where/$file.out" 2> /dev/null ||
            cp "$OUT/$where.driver" "$OUT/$where/$file.out"
        if [ "$status" -eq 124 ]; then
            printf 'cut off after %s s\n' "$FILE_SECONDS_MAX" >> "$OUT/$where/$file.out"
            query "$port" postgres "SELECT FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE
                'pg_regress/%') ended" || true
        fi
        printf '%s %s\n' "$file" $(($(date +%s) - began)) >> "$OUT/$where.times"
        [ "$where" = group ] || continue
        now_missing=$(out_of_service)
        [ "$now_missing" = "$missing" ] || say "after $file, not online: ${now_missing:-none}"
        missing=$now_missing
    done
}

# On both, at the same time.
run_on_both() { # directory of input, files
    run_files plain "$plain_port" "$@" &
    plain_run=$!
    run_files group "$base_port" "$@"
    wait $plain_run
}

# The first statement whose output differs, and the first line of that output on the group.
first_difference() { # source of the file, file
    line=$(diff "$OUT/plain/$2.out" "$OUT/group/$2.out" | sed -n '1s/^[0-9,]*[acd]\([0-9]*\).*/\1/p')
    awk -v line="${line:-1}" -v file="$2" '
        NR == FNR { source[$0] = 1; next }
        # psql echoes the lines of the test; what else there is, is output.
        { here = ($0 in source) && $0 != "" && $0 !~ /^--/ }
        here && (!before || ended) && FNR <= line { statement = ""; ended = 0 }
        here && FNR <= line { statement = statement (statement == "" ? "" : " ") $0; ended = ($0 ~ /;[ \t]*(--.*)?$/) }
        { before = here }
        FNR == line { output = $0 }
        END { gsub(/[ \t]+/, " ", statement); printf "%s\n    %s\n    %s\n", file, substr(statement, 1, 200), substr(output, 1, 200) }
    ' "$1" "$OUT/group/$2.out"
}

# Whether the group prints all that the plain server prints, and besides only warnings and notices.
says_more_only() { # file
    ! diff "$OUT/plain/$1.out" "$OUT/group/$1.out" | grep -v -e '^[0-9,]*a[0-9,]*$' -e '^> \(WARNING\|NOTICE\|DETAIL\|HINT\):  ' |
        grep -q .
}

# Messages of errors by SQLSTATE and file, names left out; from a log.
messages() { # log
    sed -n 's#^\([0-9A-Z]\{5\}\) pg_regress/\([^ ]*\) [EFP][A-Z]*:  #\2\t\1\t#p' "$1" | sed 's/"[^"]*"/"…"/g; s/ at character [0-9]*$//'
}

# What the group refuses and the plain server does not, by message: how many times, in how many files.
summarize() {
    messages "$OUT/logs/plain.log" > "$OUT/plain.messages"
    messages "$OUT/logs/node1.log" > "$OUT/group.messages"
    awk -F '\t' '
        NR == FNR { plain[$0]++; next }
        plain[$0]-- > 0 { next }
        { what = $2 "  " $3; times[what]++; if (!seen[what, $1]++) { files[what]++; names[what] = names[what] " " $1 } }
        END { for (what in times)
                  printf "%d\t%5d times in %3d files  %s\t    %s\n", what !~ /^0A000/, times[what], files[what], what,
                      substr(names[what], 1, 150) }
    ' "$OUT/plain.messages" "$OUT/group.messages" | sort -k1,1n -k5,5nr -k2,2nr | cut -f 2- | tr '\t' '\n'
}

# Why a file differs: the statements that the group refuses in it, or what the group says besides; to be put into the list.
reason() { # file
    refused=$(awk -F '\t' -v file="$1" '
        $1 != file || $2 != "0A000" { next }
        NR == FNR { plain[$3]++; next }
        plain[$3]-- > 0 || seen[$3]++ { next }
        { sub(/ (is|are) not supported in a replicated database$/, "", $3); printf "%s%s", separator, $3; separator = ", " }
    ' "$OUT/plain.messages" "$OUT/group.messages")
    if [ -n "$refused" ]; then
        printf 'refused: %s' "$refused"
    elif says_more_only "$1"; then
        printf 'says: %s' "$(sed -n 's/^+\(WARNING\|NOTICE\):  //p' "$OUT/diff/$1.diff" | sed 's/"[^"]*"/"…"/g' | sort -u |
            paste -s -d ';' | cut -c 1-120)"
    else
        printf 'other: see first.txt'
    fi
}

# Counts in `failures` what is not the same on all nodes, and nodes that are not online.
compare_nodes() { # what the database holds
    query "$base_port" "$DATABASE" "SELECT * FROM postgres_r.verify() WHERE verdict <> 'equal'" > "$OUT/verify.$1" 2>&1 || true
    grep -q '^(0 rows)' "$OUT/verify.$1" || {
        say "$1: postgres_r.verify() finds differences, see $OUT/verify.$1"
        failures=$((failures + 1))
    }
    for number in 1 2 3; do
        "$bin/pg_dump" -s -h 127.0.0.1 -p $((base_port + number - 1)) -U postgres "$DATABASE" 2> "$OUT/dump/$1.node$number.err" |
            sed '/^\\\(un\)\?restrict /d' > "$OUT/dump/$1.node$number.sql"
        diff -U 3 "$OUT/dump/$1.node1.sql" "$OUT/dump/$1.node$number.sql" > "$OUT/diff/$1.node$number.dump" || {
            say "$1: the definitions of nodes 1 and $number differ, see $OUT/diff/$1.node$number.dump"
            failures=$((failures + 1))
        }
    done
    missing=$(out_of_service)
    [ -z "$missing" ] || { say "$1: not online at the end: the nodes on ports $missing"; failures=$((failures + 1)); }
}

keep_logs() {
    for node in node1 node2 node3; do
        cp "$work/group/$node/postgres.log" "$OUT/logs/$node.log"
    done
    cp "$work/plain.log" "$OUT/logs/plain.log"
}

# Counts in `failures` the files that differ and are not listed, and those that are listed and do not.
compare_files() { # a function that prints the path of a file's source, files
    source_of=$1 same=0 more=0
    shift
    : > "$OUT/first.txt" > "$OUT/reasons.txt"
    summarize > "$OUT/summary.txt"
    for file; do
        listed=$(sed -n "s/^$file[[:space:]][[:space:]]*//p" "$root/$LIST")
        if diff -U 3 "$OUT/plain/$file.out" "$OUT/group/$file.out" > "$OUT/diff/$file.diff"; then
            rm "$OUT/diff/$file.diff"
            same=$((same + 1))
            [ -z "$listed" ] || { say "$file: listed as different ($listed), but it is the same"; failures=$((failures + 1)); }
            continue
        fi
        first_difference "$("$source_of" "$file")" "$file" >> "$OUT/first.txt"
        printf '%-27s %s\n' "$file" "$(reason "$file")" >> "$OUT/reasons.txt"
        ! says_more_only "$file" || more=$((more + 1))
        case $listed in says:*) says_more_only "$file" || listed= ;; esac
        [ -n "$listed" ] || { say "$file: DIFFERS, see $OUT/diff/$file.diff"; failures=$((failures + 1)); }
    done
    say "$same of $# files print the same on both, $more more but for warnings; $OUT/summary.txt counts what is refused"
}

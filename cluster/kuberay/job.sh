#!/bin/bash
# What a RayJob runs: bash job.sh STUDY NAME [medaug run options]
# KubeRay makes a new cluster for every try of backoffLimit, whatever the exit code. Only after 75
# (interrupted) is the same worth trying; any other end is kept in the storage, and a further try
# ends with it at once, until somebody who has mended the cause removes that file.
set -uo pipefail
umask 077

spec=${1:?a study file} name=${2:?a name for the run}
shift 2
ended=$MEDAUG_STORAGE/$name/kuberay-ended
if [[ -s $ended ]]; then
  echo "medaug: not tried again: $(cat "$ended"); mend that, remove $ended, and apply the job again" >&2
  exit "$(cut -d ' ' -f 1 "$ended")"
fi

medaug run "$spec" --name "$name" --address "$RAY_ADDRESS" --wait "$@" &
medaug=$!
# Ray sends a job's stop to medaug as well: here it is only waited for.
trap : INT TERM
wait "$medaug"
code=$?
while kill -0 "$medaug" 2>/dev/null; do  # a trapped signal ends `wait`, not medaug
  wait "$medaug"
  code=$?
done
if (( code > 128 )); then  # ended between the signal and the loop: bash still holds its true status
  wait "$medaug" 2>/dev/null
  again=$?
  (( again != 127 )) && code=$again
fi
if [[ $code == 75 && -e $MEDAUG_STORAGE/$name/budget-spent ]]; then
  echo "$code is how medaug ended: its budget is spent (raise resources.budget_hours)" > "$ended"
fi
case $code in
  0 | 75) ;;
  *)
    mkdir -p "${ended%/*}"
    echo "$code is how medaug ended (its last lines say why)" > "$ended" ;;
esac
exit "$code"

# shellcheck shell=bash
# The configuration that mt gets, in the shape of the service it replaces.

# write_config FILE PUSH_TIMEOUT EXPERIMENTS   (the last: the text of the members of `experiments`)
write_config() {
  cat >"$1" <<X
{
  "keytabPath": "$LAB/keytabs",
  "kerberosPrincipalPattern": "{{.Account}}/managedtokens/lab.test@$REALM",
  "condorCollectorHost": "collector.lab.test",
  "condorScheddConstraint": "IsJobsubLite==true",
  "vaultServer": "vault.lab.test",
  "minTokenLifetime": "3d",
  "serviceCreddVaultTokenPathRoot": "$LAB/tokens",
  "dbLocation": "$LAB/state/uid.db",
  "defaultRoleFileDestinationTemplate": "/tmp/default_role_{{.Experiment}}_{{.DesiredUID}}",
  "errorCountToSendMessage": 3,
  "timeouts": {
    "globalTimeout": "300s",
    "kerberosTimeout": "20s",
    "vaultStorerTimeout": "60s",
    "pingTimeout": "10s",
    "pushTimeout": "$2"
  },
  "email": {"from": "managed-tokens@lab.test", "smtpHost": "smtp.lab.test", "smtpPort": 25},
  "notifications": {"admin_email": "admin@lab.test", "slack_alerts_url": "$SLACK_URL"},
  "notifications_test": {"admin_email": "admin-test@lab.test", "slack_alerts_url": "${SLACK_URL}-test"},
  "prometheus": {"host": "http://pushgateway.lab.test:9091", "jobname": "managed_tokens"},
  "ferry": {
    "host": "https://ferry.lab.test",
    "port": 8445,
    "hostCert": "$LAB/ca/client.pem",
    "hostKey": "$LAB/ca/client.key",
    "caPath": "$LAB/ca/trusted",
    "serviceExperiment": "fermilab",
    "serviceRole": "admin",
    "serviceKerberosPrincipal": "fermiadm/managedtokens/lab.test@$REALM",
    "serviceKeytabPath": "$LAB/keytabs/fermiadm.keytab",
    "vaultServer": "vault.lab.test"
  },
  "logs": {
    "token-push": {"logfile": "$LAB/logs/token-push.log", "debugfile": "$LAB/logs/token-push.debug.log"},
    "refresh-uids-from-ferry": {"logfile": "$LAB/logs/refresh-uids.log", "debugfile": "$LAB/logs/refresh-uids.debug.log"}
  },
  "experiments": {
$3
  }
}
X
}

healthy_experiment() { # EXPERIMENT ACCOUNT UID
  cat <<X
    "$1": {
      "emails": ["$1@lab.test"],
      "roles": {
        "production": {
          "account": "$2",
          "desiredUIDOverride": $3,
          "destinationNodes": ["node1.lab.test", "node2.lab.test"]
        }
      }
    }
X
}

# One per kind of bad node. Every wait is cut short, so that a test of them is quick.
faulty_experiment() { # KIND NODE
  cat <<X
    "$1": {
      "emails": ["$1@lab.test"],
      "experimentOverride": "dune",
      "roles": {
        "production": {
          "account": "dunepro",
          "desiredUIDOverride": 1234,
          "pingOptionsOverride": "-W 2 -c 1",
          "sshOptionsOverride": "-o ConnectTimeout=3",
          "destinationNodes": ["$2.lab.test"]
        }
      }
    }
X
}

make_config() {
  local healthy faulty entry kind
  healthy="$(healthy_experiment dune dunepro 1234),
$(healthy_experiment mu2e mu2epro 1235)"
  write_config "$LAB/managedTokens.json" 30s "$healthy"
  faulty=$healthy
  for entry in $NODES; do
    kind=${entry##*:}
    case $kind in good | front) continue ;; esac
    faulty="$faulty,
$(faulty_experiment "$kind" "${entry%%:*}")"
  done
  write_config "$LAB/managedTokens-faults.json" 8s "$faulty"
  chmod 644 "$LAB"/managedTokens*.json
}

{{- define "speech-relay.fullname" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) -}}
{{- fail (printf "the release is called %q: a Service of that name needs a-z, 0-9 and -, and begins with a letter" .Release.Name) -}}
{{- end -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "speech-relay.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "speech-relay.labels" -}}
{{ include "speech-relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "speech-relay.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* A duration of config.yaml in whole seconds, rounded up: 20s, 1m30s, 250ms, 45. */}}
{{- define "speech-relay.seconds" -}}
{{- $text := toString . -}}
{{- $total := 0.0 -}}
{{- if regexMatch "^[0-9.]+$" $text -}}
{{- $total = float64 $text -}}
{{- else if regexMatch "^([0-9.]+(ms|s|m|h|d))+$" $text -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h|d)" $text -1 -}}
{{- $total = addf $total (mulf (float64 (regexFind "^[0-9.]+" .)) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- else -}}
{{- fail (printf "config.shutdown.grace: %q is no duration, such as 20s or 1m30s" $text) -}}
{{- end -}}
{{- ceil $total | int -}}
{{- end -}}

{{- define "speech-relay.graceSeconds" -}}
{{- add (int (include "speech-relay.seconds" (dig "shutdown" "grace" "20s" .Values.config))) (int .Values.graceMargin) -}}
{{- end -}}

{{/* outbox.spill.max, or its default, and as much again for what is written between two measurements. */}}
{{- define "speech-relay.dataBytes" -}}
{{- mul 2 (max 268435456 (int64 (dig "spill" "max" 268435456 .Values.config.outbox))) -}}
{{- end -}}

{{/* Fails where the configuration holds a secret itself. Called with a list of the path and the value. */}}
{{- define "speech-relay.refuseSecrets" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $each := $value -}}
{{- include "speech-relay.refuseSecrets" (list (printf "%s.%s" $path $key) $each) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $each := $value -}}
{{- include "speech-relay.refuseSecrets" (list $path $each) -}}
{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $text := toString $value -}}
{{- $rest := regexReplaceAll "\\$\\{\\w+\\}" $text "" -}}
{{- $refers := and (ne $rest $text) (not (contains "${" $rest)) -}}
{{- $named := regexMatch "(?i)(secret|password|passphrase|token|(api|access|private|speech|subscription)[_-]?key|authorization|_headers)$" $path -}}
{{- if hasPrefix "env." $path -}}
{{- $named = regexMatch "(?i)(key|secret|password|token|credentials\\w*|_headers)$" $path -}}
{{- if and (regexMatch "(?i)credentials(_file)?$" $path) (regexMatch "^/[\\w./-]+$" $text) -}}
{{- $named = false -}}{{/* a file's path */}}
{{- end -}}
{{- end -}}
{{- $header := regexMatch "(?i)headers[.]" $path -}}
{{- $query := regexMatch "^https?://[^?]*[?]" $text -}}
{{- $inside := regexMatch "://[^@]*:[^@]+@|(?i)[?&]\\w*password=[^&]|whsec_[^\\s]" $rest -}}
{{- if and $text (or $inside (and (or $named $header $query) (not $refers))) -}}
{{- fail (printf "%s holds a secret, or may: put it into existingSecret, or into env if it is none, and write ${VARIABLE} without a default (PGPASSWORD needs no mention)" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "speech-relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "speech-relay.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What the pods of all parts have in common. */}}
{{- define "speech-relay.placement" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "speech-relay.env" -}}
{{- with .Values.env }}
env:
{{- range $name, $value := . }}
  - {name: {{ $name }}, value: {{ toString $value | quote }}}
{{- end }}
{{- end }}
envFrom:
  - secretRef: {name: {{ required "existingSecret: name the Secret with the relay's secrets" .Values.existingSecret | quote }}}
{{- end -}}

{{/* A Deployment, its PodDisruptionBudget and its HorizontalPodAutoscaler: (list context "worker"). */}}
{{- define "speech-relay.part" -}}
{{- $part := index . 1 -}}
{{- with index . 0 -}}
{{- $context := . -}}
{{- $own := index .Values $part -}}
{{- $name := printf "%s-%s" (include "speech-relay.fullname" .) $part -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "speech-relay.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part }}
spec:
  {{- if not $own.autoscaling.enabled }}
  replicas: {{ $own.replicas }}
  {{- end }}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector:
    matchLabels: {{- include "speech-relay.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $part }}
  template:
    metadata:
      labels: {{- include "speech-relay.labels" . | nindent 8 }}
        app.kubernetes.io/component: {{ $part }}
        {{- with .Values.podLabels }}{{- toYaml . | nindent 8 }}{{- end }}
      annotations:
        # the relay follows a change of the endpoints; anything else needs a start
        checksum/config: {{ omit .Values.config "endpoints" | toJson | sha256sum }}
        {{- with .Values.podAnnotations }}{{- toYaml . | nindent 8 }}{{- end }}
    spec:
      {{- include "speech-relay.placement" . | nindent 6 }}
      # shutdown.grace and graceMargin
      terminationGracePeriodSeconds: {{ include "speech-relay.graceSeconds" . }}
      securityContext: {{- include "speech-relay.podSecurity" . | nindent 8 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "speech-relay.selector" . | nindent 14 }}
              app.kubernetes.io/component: {{ $part }}
      containers:
        - name: {{ $part }}
          image: {{ include "speech-relay.image" . }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args: [{{ $part }}, --config, /etc/speech-relay/config.yaml, --log-format, json]
          {{- include "speech-relay.env" . | nindent 10 }}
          ports:
            - {name: http, containerPort: 8790}
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe: # alive, not ready: waiting for LiveKit or PostgreSQL is no reason to restart
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
          resources: {{- toYaml $own.resources | nindent 12 }}
          securityContext: {{- include "speech-relay.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/speech-relay, readOnly: true}
            - {name: data, mountPath: /app/var}
            - {name: tmp, mountPath: /tmp}
            {{- with .Values.extraVolumeMounts }}{{- toYaml . | nindent 12 }}{{- end }}
      volumes:
        - {name: config, configMap: {name: {{ include "speech-relay.fullname" . }}}}
        # where events wait for a PostgreSQL server that is away: more than the limit would evict the pod
        - {name: data, emptyDir: {sizeLimit: {{ include "speech-relay.dataBytes" . | quote }}}}
        - {name: tmp, emptyDir: {}}
        {{- with .Values.extraVolumes }}{{- toYaml . | nindent 8 }}{{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "speech-relay.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part }}
spec:
  {{- toYaml $own.disruptionBudget | nindent 2 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "speech-relay.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $part }}
{{- with $own.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "%s.autoscaling: minReplicas is %d, and maxReplicas %d" $part (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "speech-relay.labels" $context | nindent 4 }}
    app.kubernetes.io/component: {{ $part }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .cpuUtilization }}}}
    {{- with .lag }}
    - type: External
      external:
        metric:
          name: {{ .metric }}
          {{- with .selector }}
          selector:
            matchLabels: {{- toYaml . | nindent 14 }}
          {{- end }}
        target: {type: Value, value: {{ toString .target | quote }}}
    {{- end }}
  behavior: # a pod that ends hands over its rooms or lanes: not for a lull of a minute
    scaleDown:
      stabilizationWindowSeconds: 600
      policies: [{type: Pods, value: 1, periodSeconds: 60}]
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

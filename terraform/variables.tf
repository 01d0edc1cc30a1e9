# Values come from conf/cluster/NAME.yaml and the command line: `imgpull cluster up` writes
# terraform.tfvars.json. Defaults here are of what no description has.

variable "subscription_id" {
  description = "The subscription that is billed."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", var.subscription_id))
    error_message = "A subscription id is a UUID: az account show --query id."
  }
}

variable "location" {
  description = "Azure's name of the region, for example eastus."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "A region is lower-case letters and digits: az account list-locations -o table."
  }
}

variable "resource_group_name" {
  description = "A group that does not exist yet: all is made in it, and it goes with the cluster."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,80}$", var.resource_group_name))
    error_message = "A group's name has up to 80 letters, digits, '-' and '_'."
  }
}

variable "cluster_name" {
  description = "Name of the AKS cluster, of its network and its DNS prefix."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?$", var.cluster_name))
    error_message = "A cluster's name has up to 45 lower-case letters, digits and '-', none at an end."
  }
}

variable "kubernetes_version" {
  description = "Minor version (AKS takes its newest patch), or a full one."
  type        = string

  validation {
    condition     = can(regex("^1\\.[0-9]{2}(\\.[0-9]+)?$", var.kubernetes_version))
    error_message = "For example 1.34; what a region has: az aks get-versions --location REGION -o table."
  }
}

variable "sku_tier" {
  description = "Tier of the control plane. Free has no hourly fee and a smaller API server."
  type        = string
  default     = "Free"

  validation {
    condition     = contains(["Free", "Standard", "Premium"], var.sku_tier)
    error_message = "Choose Free, Standard or Premium."
  }

  validation {
    # AKS docs, Pricing tiers: Free is for up to 1 000 nodes, recommended for fewer than 10.
    condition     = var.sku_tier != "Free" || var.measured_node_count + var.system_node_count + 1 <= 1000
    error_message = "The Free tier ends at 1 000 nodes: sku_tier = \"Standard\"."
  }
}

variable "os_sku" {
  description = "Node image of all pools. It decides on the containerd version."
  type        = string
  default     = "Ubuntu2204"

  validation {
    condition     = contains(["AzureLinux", "AzureLinux3", "Ubuntu", "Ubuntu2204", "Ubuntu2404"], var.os_sku)
    error_message = "Choose AzureLinux, AzureLinux3, Ubuntu, Ubuntu2204 or Ubuntu2404."
  }
}

variable "system_vm_size" {
  description = "Machines of the system pool. AKS asks for 4 vCPU and 4 GiB or more."
  type        = string
  default     = "Standard_D4as_v5"

  validation {
    condition     = can(regex("^Standard_[A-Za-z0-9_]+$", var.system_vm_size))
    error_message = "A VM size as Azure writes it: Standard_D4as_v5."
  }
}

variable "system_node_count" {
  description = "Nodes of the system pool. One is enough for a measurement; AKS advises three for production."
  type        = number
  default     = 1

  validation {
    condition     = var.system_node_count >= 1 && var.system_node_count <= 20 && floor(var.system_node_count) == var.system_node_count
    error_message = "From 1 to 20."
  }
}

variable "prometheus_vm_size" {
  description = "The machine of ClusterLoader2's Prometheus: 10 GiB for each begun thousand nodes."
  type        = string
  default     = "Standard_D4as_v5"

  validation {
    condition     = can(regex("^Standard_[A-Za-z0-9_]+$", var.prometheus_vm_size))
    error_message = "A VM size as Azure writes it: Standard_D4as_v5."
  }
}

variable "prometheus_node_labels" {
  description = "Labels by which ClusterLoader2's Prometheus finds its node."
  type        = map(string)

  validation {
    condition     = length(var.prometheus_node_labels) > 0
    error_message = "Without a label Prometheus runs on a measured node."
  }
}

variable "measured_pool_name" {
  description = "The measured pool: nodes are called aks-NAME-…, and carry kubernetes.azure.com/agentpool=NAME."
  type        = string
  default     = "measured"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,11}$", var.measured_pool_name)) && !contains(["system", "prometheus"], var.measured_pool_name)
    error_message = "Up to 12 lower-case letters and digits, a letter first, and not system or prometheus."
  }
}

variable "measured_vm_size" {
  description = "Machines that pull the image."
  type        = string

  validation {
    condition     = can(regex("^Standard_[A-Za-z0-9_]+$", var.measured_vm_size))
    error_message = "A VM size as Azure writes it: Standard_D4ds_v5."
  }
}

variable "measured_node_count" {
  description = "How many of them. Another number scales the pool, all else makes it anew."
  type        = number

  validation {
    condition     = var.measured_node_count >= 0 && var.measured_node_count <= 1000 && floor(var.measured_node_count) == var.measured_node_count
    error_message = "An AKS pool has from 0 to 1 000 nodes."
  }
}

variable "measured_os_disk_type" {
  description = "Where images land: Ephemeral is the machine's own disk, Managed a premium SSD."
  type        = string

  validation {
    condition     = contains(["Ephemeral", "Managed"], var.measured_os_disk_type)
    error_message = "Choose Ephemeral or Managed."
  }
}

variable "measured_os_disk_size_gb" {
  description = "Its size; of a managed disk the size decides on its rate."
  type        = number

  validation {
    condition     = var.measured_os_disk_size_gb >= 30 && var.measured_os_disk_size_gb <= 2048
    error_message = "AKS takes from 30 to 2 048."
  }
}

variable "measured_max_pods" {
  description = "kubelet's maxPods."
  type        = number

  validation {
    condition     = var.measured_max_pods >= 10 && var.measured_max_pods <= 250
    error_message = "With Azure CNI overlay AKS takes from 10 to 250."
  }
}

variable "measured_zones" {
  description = "Availability zones that nodes are spread over; none is AKS's default."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for zone in var.measured_zones : contains(["1", "2", "3"], zone)])
    error_message = "Zones are \"1\", \"2\" and \"3\"."
  }
}

variable "measured_node_labels" {
  description = "Further labels of measured nodes; those of kubernetes.azure.com are AKS's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.measured_node_labels) : !strcontains(key, "kubernetes.azure.com/")])
    error_message = "AKS sets labels of kubernetes.azure.com itself."
  }
}

variable "measured_node_taints" {
  description = "Taints of measured nodes, as KEY=VALUE:EFFECT."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for taint in var.measured_node_taints : can(regex("^[^=:]+=[^=:]*:(NoSchedule|PreferNoSchedule|NoExecute)$", taint))])
    error_message = "Write a taint as KEY=VALUE:NoSchedule."
  }
}

variable "image_gc_high_threshold" {
  description = "Percent of the disk from which kubelet removes images; null is kubelet's 85."
  type        = number
  default     = null

  validation {
    condition     = var.image_gc_high_threshold == null ? true : var.image_gc_high_threshold > 0 && var.image_gc_high_threshold <= 100
    error_message = "From 1 to 100; 100 never removes an image."
  }
}

variable "image_gc_low_threshold" {
  description = "Percent of the disk down to which it does; null is kubelet's 80."
  type        = number
  default     = null

  validation {
    condition     = (var.image_gc_low_threshold == null) == (var.image_gc_high_threshold == null)
    error_message = "Give both thresholds of image garbage collection, or none."
  }

  validation {
    condition     = var.image_gc_low_threshold == null || var.image_gc_high_threshold == null ? true : var.image_gc_low_threshold >= 0 && var.image_gc_low_threshold < var.image_gc_high_threshold
    error_message = "The low threshold is below the high one."
  }
}

variable "vnet_cidr" {
  description = "Addresses of the virtual network."
  type        = string
  default     = "10.224.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vnet_cidr))
    error_message = "An IPv4 range like 10.224.0.0/16."
  }
}

variable "nodes_cidr" {
  description = "Addresses of nodes, within vnet_cidr: a /20 holds 4 091."
  type        = string
  default     = "10.224.0.0/20"

  validation {
    condition     = can(cidrnetmask(var.nodes_cidr))
    error_message = "An IPv4 range like 10.224.0.0/20."
  }

  validation {
    condition = (
      tonumber(split("/", var.nodes_cidr)[1]) >= tonumber(split("/", var.vnet_cidr)[1]) &&
      cidrsubnet("${split("/", var.nodes_cidr)[0]}/${split("/", var.vnet_cidr)[1]}", 0, 0) == cidrsubnet(var.vnet_cidr, 0, 0)
    )
    error_message = "nodes_cidr is not within vnet_cidr."
  }

  validation {
    # Azure keeps five addresses of a subnet; an upgrade adds up to a tenth of a pool.
    condition = (
      pow(2, 32 - tonumber(split("/", var.nodes_cidr)[1])) - 5 >=
      1.1 * (var.measured_node_count + var.system_node_count + 1) + 2
    )
    error_message = "nodes_cidr has fewer addresses than there are nodes."
  }
}

variable "pod_cidr" {
  description = "Addresses of pods in the overlay, a /24 for each node: a /12 is enough for 4 096."
  type        = string
  default     = "10.128.0.0/12"

  validation {
    condition     = can(cidrnetmask(var.pod_cidr))
    error_message = "An IPv4 range like 10.128.0.0/12."
  }

  validation {
    condition = (
      pow(2, 24 - tonumber(split("/", var.pod_cidr)[1])) >=
      1.1 * (var.measured_node_count + var.system_node_count + 1) + 2
    )
    error_message = "pod_cidr has no /24 for each node."
  }

  validation {
    # Two ranges overlap where the shorter prefix of both names the same network.
    condition = (
      cidrsubnet("${split("/", var.pod_cidr)[0]}/${min(split("/", var.pod_cidr)[1], split("/", var.vnet_cidr)[1])}", 0, 0) !=
      cidrsubnet("${split("/", var.vnet_cidr)[0]}/${min(split("/", var.pod_cidr)[1], split("/", var.vnet_cidr)[1])}", 0, 0)
    )
    error_message = "pod_cidr overlaps vnet_cidr."
  }
}

variable "service_cidr" {
  description = "Addresses of Services; its tenth is the cluster's DNS."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.service_cidr)) && can(cidrhost(var.service_cidr, 10)) && tonumber(split("/", var.service_cidr)[1]) >= 12
    error_message = "An IPv4 range like 10.0.0.0/16, of at most a /12."
  }

  validation {
    condition = (
      cidrsubnet("${split("/", var.service_cidr)[0]}/${min(split("/", var.service_cidr)[1], split("/", var.vnet_cidr)[1])}", 0, 0) !=
      cidrsubnet("${split("/", var.vnet_cidr)[0]}/${min(split("/", var.service_cidr)[1], split("/", var.vnet_cidr)[1])}", 0, 0)
    )
    error_message = "service_cidr overlaps vnet_cidr."
  }

  validation {
    condition = (
      cidrsubnet("${split("/", var.service_cidr)[0]}/${min(split("/", var.service_cidr)[1], split("/", var.pod_cidr)[1])}", 0, 0) !=
      cidrsubnet("${split("/", var.pod_cidr)[0]}/${min(split("/", var.service_cidr)[1], split("/", var.pod_cidr)[1])}", 0, 0)
    )
    error_message = "service_cidr overlaps pod_cidr."
  }
}

variable "registry_name" {
  description = "A container registry to make, by its name before .azurecr.io; null makes none."
  type        = string
  default     = null

  validation {
    condition     = var.registry_name == null ? true : can(regex("^[a-z0-9]{5,50}$", var.registry_name))
    error_message = "A registry's name has 5 to 50 lower-case letters and digits, unique in all of Azure."
  }
}

variable "registry_id" {
  description = "A registry that exists, by its resource id, in any subscription: nodes may pull from it."
  type        = string
  default     = null

  validation {
    condition     = var.registry_id == null ? true : can(regex("^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.ContainerRegistry/registries/[^/]+$", var.registry_id))
    error_message = "A resource id: az acr show --name NAME --query id."
  }

  validation {
    condition     = var.registry_id == null || var.registry_name == null
    error_message = "Either make a registry (registry_name) or use one (registry_id)."
  }
}

variable "registry_sku" {
  description = "Tier of the registry that is made."
  type        = string
  default     = "Basic"

  validation {
    condition     = contains(["Basic", "Standard", "Premium"], var.registry_sku)
    error_message = "Choose Basic, Standard or Premium."
  }
}

variable "registry_anonymous_pull" {
  description = "Whether anybody may pull from the registry that is made."
  type        = bool
  default     = false

  validation {
    condition     = !var.registry_anonymous_pull || var.registry_sku != "Basic"
    error_message = "Anonymous pulls need a Standard or Premium registry."
  }
}

variable "registry_replica_locations" {
  description = "Further regions that hold a copy of the registry that is made."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.registry_replica_locations) == 0 || var.registry_sku == "Premium"
    error_message = "Geo-replication needs a Premium registry."
  }

  validation {
    condition     = !contains(var.registry_replica_locations, var.location)
    error_message = "The registry's own region is no replica."
  }
}

variable "tags" {
  description = "Of everything: who made it, for which sweep, until when. The janitor goes by them."
  type        = map(string)

  validation {
    condition = alltrue([
      for key in ["managed-by", "owner", "sweep", "expiry", "imgpull-id"] : contains(keys(var.tags), key)
    ])
    error_message = "Tags managed-by, owner, sweep, expiry and imgpull-id are needed."
  }

  validation {
    condition     = lookup(var.tags, "managed-by", "") == "imgpull"
    error_message = "The tag managed-by is imgpull, or the janitor would not find it."
  }

  validation {
    condition     = can(formatdate("YYYY", lookup(var.tags, "expiry", "")))
    error_message = "The tag expiry is a moment in UTC: 2026-11-25T18:00:00Z."
  }
}

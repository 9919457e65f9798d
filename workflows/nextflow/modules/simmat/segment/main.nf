process SIMMAT_SEGMENT {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "napari-simmat:latest"

    input:
    tuple val(meta), path(image), path(prompts)
    val model

    output:
    tuple val(meta), path("*_labels.*")    , emit: labels
    tuple val(meta), path("*_objects.csv") , emit: objects
    tuple val(meta), path("*.json")        , emit: record
    path "versions.yml"                    , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def given = prompts ? "${prompts}" : 'auto'
    """
    export OMP_NUM_THREADS=${task.cpus}
    simmat segment "${image}" --model "${model}" --prompts "${given}" --output out ${args}
    mv out/* .

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        napari-simmat: \$(simmat --version)
    END_VERSIONS
    """

    stub:
    def stem = image.simpleName
    """
    touch ${stem}_labels.tif ${stem}_objects.csv ${stem}.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        napari-simmat: \$(simmat --version)
    END_VERSIONS
    """
}
